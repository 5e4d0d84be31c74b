"""A WebSocket client that others wrote. Arguments: socket of the endpoint, container, query. Sends what comes on its
own input as one message, and prints each answer as hex, a line each; then how the connection ended."""

import socket
import sys

import websocket

path, container, query = sys.argv[1:4]
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
client = websocket.create_connection(
    f"ws://localhost/v1.50/containers/{container}/attach/ws?{query}", socket=connection, timeout=60
)
print("open", flush=True)
text = sys.stdin.buffer.read()
if text:
    try:
        client.send_binary(text)
        client.ping("still there?")
    except OSError:
        pass  # Refused while it was sent; the close says so.
while True:
    try:
        kind, data = client.recv_data(control_frame=True)
    except (OSError, websocket.WebSocketException):
        break
    if kind == websocket.ABNF.OPCODE_BINARY:
        print(data.hex(), flush=True)
    elif kind == websocket.ABNF.OPCODE_PONG:
        print("pong", data.decode(), flush=True)
    elif kind == websocket.ABNF.OPCODE_CLOSE:
        print("close", flush=True)
        break
