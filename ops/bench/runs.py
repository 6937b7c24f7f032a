"""Runs of one node: from the chat message to the durable 200, and to the end of the run."""

from pathlib import Path

from rig.ends import Ends
from rig.figures import Tell
from rig.http import Connection
from rig.load import drive, drive_at
from rig.server import build, serving

CHATS = 64


async def measure(directory: Path, seconds: float, tell: Tell) -> None:
    """Tell the rows. Each client has a chat of its own: a chat runs one thing at a time."""
    async with serving(directory) as server:
        connection = await server.connect()
        for number in range(CHATS):
            nodes = {
                "in": ("trigger_chat", {}),
                "say": ("reply_chat", {"extra_config": {"message": "{{ trigger.text }}"}}),
            }
            await build(connection, f"chat-{number}", nodes, "in -> say")
        slugs = [f"chat-{number}" for number in range(CHATS)]
        async with Ends.listen(server, slugs) as ends:

            async def accept(number: int, connection: Connection) -> None:
                await connection.post(f"/workflows/chat-{number % CHATS}/chat/", {"text": "hello"})

            async def run(number: int, connection: Connection) -> None:
                path = f"/workflows/chat-{number % CHATS}/chat/"
                answer = await connection.post(path, {"text": "hello"})
                await ends.wait(answer["execution_id"])

            name = "accept, 100/s"
            tell(await drive_at(name, server, accept, per_second=100, seconds=seconds))
            for clients in (1, 16, 64):
                name = f"accept to done, {clients} clients"
                tell(await drive(name, server, run, clients=clients, seconds=seconds))
