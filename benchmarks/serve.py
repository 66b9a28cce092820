"""One of the servers of a benchmark, as a process: prints its port, ends when its standard input does.

So nothing is left of a benchmark that was killed: neither the servers nor the captures.
"""

from __future__ import annotations

import argparse
import os
import shutil
import ssl
import sys
import threading
from pathlib import Path

from benchmarks.http_server import HttpServer
from benchmarks.s3_sink import S3Sink
from benchmarks.webex_stand_in import WebexStandIn


def main() -> None:
    """Serve until nobody holds the other end of standard input any more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", choices=("webex", "s3"))
    parser.add_argument("--directory", type=Path, help="where the media are; removed at the end")
    parser.add_argument("--certificate", type=Path, help="serve TLS with this certificate and key")
    arguments = parser.parse_args()
    handle = (
        S3Sink().handle if arguments.server == "s3" else WebexStandIn(arguments.directory).handle
    )
    tls = None
    if arguments.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(arguments.certificate)
    server = HttpServer(handle, tls)
    threading.Thread(target=server.serve, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()
    if arguments.directory:  # whoever started this may have been killed, and it may lie in memory
        shutil.rmtree(arguments.directory, ignore_errors=True)
    os._exit(0)  # connections still open wait for nobody


if __name__ == "__main__":
    main()
