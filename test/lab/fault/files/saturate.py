# Slow clients on Patroni's REST port: each sends a request one byte at a time and starts again when it is dropped.
import socket
import time

REQUEST = b"GET /patroni HTTP/1.1\r\nHost: lab\r\nX-Slow: " + b"z" * 4000
clients = {}
while True:
    while len(clients) < 300:
        c = socket.socket()
        c.setblocking(False)
        c.connect_ex(("127.0.0.1", 8008))
        clients[c] = 0
    for c, n in list(clients.items()):
        try:
            c.send(REQUEST[n:n + 1])
            clients[c] = n + 1
        except BlockingIOError:
            pass
        except OSError:
            c.close()
            del clients[c]
    time.sleep(1)
