"""All cameras' pictures over one connection, and WebRTC for ordinary players."""

from __future__ import annotations

import asyncio
import json

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="the page needs the web extra")

from tests.live.test_fail_closed import Moody  # noqa: E402
from tests.live.test_live import Run  # noqa: E402
from tests.servers import free_port, until  # noqa: E402

CAMERA = "lavfi:testsrc2=size=160x120:rate=25,realtime"


def test_one_socket_has_the_pictures_of_all_cameras_or_of_those_that_are_wanted() -> None:
    port = free_port()
    names = [f"cam{n}" for n in range(4)]

    async def look(run: Run) -> None:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"http://127.0.0.1:{port}/pictures") as socket:
                seen: dict[str, int] = {}
                while min(seen.get(name, 0) for name in names) < 3:
                    data = await asyncio.wait_for(socket.receive_bytes(), 20)
                    name = data[1 : 1 + data[0]].decode()
                    assert data[1 + data[0] :].startswith(b"\xff\xd8")
                    seen[name] = seen.get(name, 0) + 1
                await socket.send_str(json.dumps(["cam2"]))
                page = run.pages[0]
                while any(page._sinks[name].viewers for name in names if name != "cam2"):
                    await asyncio.wait_for(socket.receive_bytes(), 20)
                assert page._sinks["cam2"].viewers == 1
            answer = await session.get(f"http://127.0.0.1:{port}/pictures", headers={"Origin": "http://elsewhere"})
            assert answer.status == 403

    with Run(dict.fromkeys(names, CAMERA), [f"http://127.0.0.1:{port}"], Moody()) as run:
        run.until(lambda: all(run.left(name) > 3 for name in names))
        asyncio.run(look(run))
        until(lambda: not any(sink.viewers for sink in run.pages[0]._sinks.values()))


def test_whep_has_a_location_that_ends_it() -> None:
    aiortc = pytest.importorskip("aiortc", reason="WebRTC needs the webrtc extra")
    port = free_port()
    base = f"http://127.0.0.1:{port}"

    async def watch(run: Run) -> None:
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        peer.addTransceiver("video", direction="recvonly")
        frames: list[object] = []

        @peer.on("track")
        async def take(track: object) -> None:
            while len(frames) < 3:
                frames.append(await track.recv())  # type: ignore[attr-defined]

        await peer.setLocalDescription(await peer.createOffer())
        headers = {"Content-Type": "application/sdp"}
        async with aiohttp.ClientSession() as session:
            offer = peer.localDescription.sdp
            answer = await session.post(f"{base}/camera/door/whep", data=offer, headers=headers)
            assert (answer.status, answer.content_type) == (201, "application/sdp")
            where = answer.headers["Location"]
            assert where.startswith("/camera/door/whep/")
            await peer.setRemoteDescription(aiortc.RTCSessionDescription(await answer.text(), "answer"))
            for _ in range(300):
                if len(frames) >= 3:
                    break
                await asyncio.sleep(0.1)
            assert len(frames) >= 3
            assert run.pages[0]._sinks["door"].callers == 1
            assert (await session.delete(base + where)).status == 200
            assert (await session.delete(base + where)).status == 404
            assert run.pages[0]._sinks["door"].callers == 0
            wrong = await session.post(f"{base}/camera/door/whep", data="{}", headers={"Content-Type": "text/json"})
            assert wrong.status == 415
        await peer.close()

    with Run({"door": CAMERA}, [base], Moody(), run__webrtc=True) as run:
        run.until(lambda: run.left("door") > 3)
        asyncio.run(watch(run))
