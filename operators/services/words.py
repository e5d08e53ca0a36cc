"""A model's words on their way to whoever watches: gathered for a moment, then sent where they may get lost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from openvibe.protocol import envelope, subjects
from operators.link import link
from operators.models import Run
from operators.services.masking import masked, masker

#: How long words are gathered before they are sent, in seconds: a page cannot show more than some frames a second.
GATHER = 0.05


@dataclass
class Words:
    """The words of one run."""

    run: Run
    _text: str = ""
    _node: str = ""
    _step_id: str = ""
    _index: int = 0
    _sent_at: float = field(default_factory=time.monotonic)

    def add(self, *, node: str, step_id: str, text: str) -> None:
        """Take words in, and send what has gathered, but for an end that may be the beginning of a secret."""
        if step_id != self._step_id:
            self.flush()
            self._node, self._step_id, self._index = node, step_id, 0
            self._publish("start", "")
        self._text += text
        if time.monotonic() - self._sent_at >= GATHER:
            self._send(len(self._text) - masker().unclear(self._text))

    def flush(self) -> None:
        """Send what has gathered, and that the step says no more."""
        self._send(len(self._text))
        if self._step_id:
            self._publish("end", "")
            self._step_id = ""

    def _send(self, length: int) -> None:
        if not length:
            return
        text, self._text = masked(self._text[:length]), self._text[length:]
        self._publish("content", text)
        self._index += len(text)
        self._sent_at = time.monotonic()

    def _publish(self, chunk_type: str, content: str) -> None:
        body = {
            "agent_turn_id": self.run.turn_id,
            "step_id": self._step_id,
            "node": self._node,
            "chunk_type": chunk_type,
            "content": content,
            "index": self._index,
        }
        subject = subjects.chunk(self.run.project_id, subjects.thread(self.run.id), self.run.operator.slug)
        link.cast(subject, envelope.dumps(body))
