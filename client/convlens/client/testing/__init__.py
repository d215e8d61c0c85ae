"""A fake Convlens server in the test's own process, for tests of programs that call Convlens.

from convlens.client.testing import serve

server = serve()
with server as target, Client(target) as client:
    client.grad_cam("photo.jpg")["grad_cam"]    # float32 (1, 14, 14): no network computed it
    server.fail_next("QUEUE_FULL", retry_after=60)
    client.grad_cam("photo.jpg")                # raises Overloaded

It needs what the SDK needs, and neither TensorFlow nor Redis. Arrays have the names, shapes and dtypes of the real
ones. Their values are noise that depends on the image's bytes, the array's name and the target; equal requests give
equal arrays. Requests are checked as by the real server, except for:

- damage inside an image file, and its size: the first bytes are looked at, nothing is decoded;
- the limits on working memory, and on all jobs together (`fail_next` simulates these);
- tokens and TLS: there are none.
"""

from convlens.client.testing.cards import vgg16
from convlens.client.testing.server import FakeServer, ReceivedRequest, serve

__all__ = ["FakeServer", "ReceivedRequest", "serve", "vgg16"]
