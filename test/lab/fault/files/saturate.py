# A crowd on Patroni's REST port: three hundred clients that send a byte now and then and never finish, and a few that
# post five megabytes of JSON which lacks its last bracket. Parsing that holds Python's interpreter lock, so /liveness
# takes seconds, yet the loop turns and the lease is renewed. More than about a thousand slow clients would be another
# fault: they use up Patroni's file descriptors, and then its loop fails as well.
import asyncio

SLOW, BUSY = 300, 6
BODY = b"[" + b"[1e9]," * 900_000


async def slow():
    while True:
        try:
            _, w = await asyncio.open_connection("127.0.0.1", 8008)
            w.write(b"GET /patroni HTTP/1.1\r\nHost: lab\r\nX-Slow: ")
            while True:
                w.write(b"z")
                await w.drain()
                await asyncio.sleep(5)
        except OSError:
            await asyncio.sleep(0.5)


async def busy():
    while True:
        try:
            r, w = await asyncio.open_connection("127.0.0.1", 8008)
            w.write(b"POST /switchover HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY))
            w.write(BODY)
            await w.drain()
            await r.read()
            w.close()
        except OSError:
            await asyncio.sleep(0.1)


async def main():
    await asyncio.gather(*(slow() for _ in range(SLOW)), *(busy() for _ in range(BUSY)))


asyncio.run(main())
