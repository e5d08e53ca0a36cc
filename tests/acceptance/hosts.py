"""An operator that receives guests of whom strangers tell."""

from datetime import timedelta

from openvibe import node, operator, workflow


def receiving(stranger):
    """Return a workflow that one stranger's event starts."""

    class Receive:
        @node
        def greet(self, state, ctx):
            return ctx.request(stranger, "greeting", {"guest": state["guest"]}, timeout=timedelta(minutes=1))

        @node
        def rate(self, state, ctx):
            key = f"{state['guest']}/score"
            return {"score": ctx.context.watch("leads", key, after=0, timeout=timedelta(minutes=1)).value}

    return workflow(id=f"receive_{stranger}", trigger=f"event:{stranger}.arrived", inputs=("guest",))(Receive)


@operator(id="hosts", name="Hosts")
class Hosts:
    guest: str = ""
    greeting: str = ""
    score: int = 0
    verdict: str = ""

    ReceivePython = receiving("python_stranger")
    ReceiveJavascript = receiving("javascript_stranger")

    @workflow(id="rate", trigger="request:rating", inputs=("guest",))
    class Rate:
        @node
        def rate(self, state, ctx):
            return {"verdict": f"{state['guest']} is rated {ctx.context.get('leads', state['guest'] + '/score')}"}
