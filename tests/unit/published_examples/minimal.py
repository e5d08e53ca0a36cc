"""The smallest operator, a complete program, word for word. Its `serve` registers where a source is read."""
# ruff: noqa
# fmt: off

from openvibe import operator, workflow, llm_node, serve

@operator(id="hello", name="Hello World")
class Hello:
    greeting: str = ""

    @workflow(id="greet", trigger="on_demand")
    class Greet:
        @llm_node(model="haiku")
        def say_hello(self, state):
            return {
                "system": "You are friendly.",
                "user": "Say hello!",
                "output_key": "greeting",
            }

# Run
serve(Hello, port=8000)
