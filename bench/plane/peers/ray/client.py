"""Ray Serve's client."""

import sys

from bench.plane.peers.http import main

main(f"http://127.0.0.1:{sys.argv[1]}/maps")
