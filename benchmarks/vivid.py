"""A real V4L2 webcam for tests: the kernel's vivid driver in a virtual machine that mounts this machine's files.

    python benchmarks/vivid.py [FOLDER]

Needs qemu-system-x86, busybox-static and, for its kernel, `apt-get download` of Debian's linux-image (kept in FOLDER,
/var/tmp/facestream-vivid by default). KVM is not used, since few rented machines support it fully. The virtual machine
runs benchmarks/vivid_checks.py; the exit code is that script's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = ("virtio_pci", "9pnet_virtio", "9p", "vivid")
DONE = "the checks ended with "
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read module; do insmod /modules/$module; done < /modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose host /host || echo "the files cannot be mounted"
for part in proc sys dev; do mount --bind /$part /host/$part; done
ip link set lo up
cd /host
chroot /host /bin/sh -c 'cd "{root}" && TMPDIR=/dev PYTHONDONTWRITEBYTECODE=1 "{python}" benchmarks/vivid_checks.py'
echo "{done}$?"
poweroff -f
"""


def modules(tree: Path) -> list[Path]:
    """The required modules and their dependencies, in loading order."""
    files = {path.stem.replace("-", "_"): path for path in tree.rglob("*.ko")}
    order: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:
            return  # built in, or already listed
        found = re.search(rb"depends=([^\0]*)\0", path.read_bytes())
        for other in found[1].decode().split(",") if found else ():
            add(other)
        order.append(path)

    for name in WANTED:
        add(name)
    return order


def cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An initramfs (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst): name -> mode, content."""
    out = bytearray()
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))]):
        label = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(label), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + label
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def kernel(folder: Path) -> Path:
    """The path of Debian's kernel, downloaded and unpacked on first use."""
    if not list(folder.glob("boot/vmlinuz-*")):
        folder.mkdir(parents=True, exist_ok=True)
        text = subprocess.run(
            ["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=True
        ).stdout
        name = re.search(r"Depends: (linux-image-\S+)", text)
        assert name is not None, "apt knows no linux-image-amd64"
        subprocess.run(["apt-get", "download", "-qq", name[1]], cwd=folder, check=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
            package.unlink()
    return next(folder.glob("boot/vmlinuz-*"))


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "/var/tmp/facestream-vivid")
    for program in ("qemu-system-x86_64", "busybox"):
        if shutil.which(program) is None:
            print(f"{program} is not installed: apt-get install qemu-system-x86 busybox-static")
            return 2
    image = kernel(folder)
    loaded = modules(folder)
    files = {name: (0o40755, b"") for name in ("bin", "dev", "proc", "sys", "host", "modules")}
    busybox = Path(str(shutil.which("busybox")))
    files["bin/busybox"] = (0o100755, busybox.read_bytes())
    files["init"] = (0o100755, INIT.format(root=ROOT, python=sys.executable, done=DONE).encode())
    files["modules/order"] = (0o100644, "".join(f"{path.name}\n" for path in loaded).encode())
    for path in loaded:
        files[f"modules/{path.name}"] = (0o100644, path.read_bytes())
    ramdisk = folder / "initramfs"
    ramdisk.write_bytes(cpio(files))
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1500",
        "-nographic", "-no-reboot", "-nic", "none", "-kernel", str(image), "-initrd", str(ramdisk),
        "-append", "console=ttyS0 quiet panic=-1",
        "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
    ]  # fmt: skip
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
    assert machine.stdout is not None
    code = 1
    for line in machine.stdout:
        print(line.rstrip(), flush=True)
        if line.startswith(DONE):
            code = int(line.removeprefix(DONE))
    machine.wait()
    return code


if __name__ == "__main__":
    sys.exit(main())
