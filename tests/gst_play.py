"""GStreamer's RTSP server with a test picture, as a camera; run by the system's Python.

Arguments: port, and after how many frames whoever makes the picture goes away.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_shared(True)
count = sys.argv[2] if len(sys.argv) > 2 else "-1"
source = f"videotestsrc is-live=true num-buffers={count} ! video/x-raw,width=320,height=240,framerate=25/1"
encoder = "openh264enc gop-size=25 complexity=low"
factory.set_launch(f"( {source} ! {encoder} ! rtph264pay name=pay0 pt=96 config-interval=-1 )")
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
