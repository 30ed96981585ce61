"""Putting several native modules into one wheel."""

import base64
import hashlib
import zipfile
from pathlib import Path

import build_wheel


def test_files_are_added_and_recorded(tmp_path: Path) -> None:
    source, target = tmp_path / "one.whl", tmp_path / "all.whl"
    with zipfile.ZipFile(source, "w") as wheel:
        wheel.writestr("pkg/__init__.py", "x = 1\n")
        wheel.writestr("pkg-1.dist-info/RECORD", "pkg/__init__.py,sha256=abc,6\npkg-1.dist-info/RECORD,,\n")
    build_wheel.add(source, {"pkg/_native_v3.so": b"module"}, target)
    with zipfile.ZipFile(target) as wheel:
        assert wheel.testzip() is None
        assert wheel.read("pkg/__init__.py") == b"x = 1\n"
        assert wheel.read("pkg/_native_v3.so") == b"module"
        assert sorted(wheel.namelist()) == ["pkg-1.dist-info/RECORD", "pkg/__init__.py", "pkg/_native_v3.so"]
        digest = base64.urlsafe_b64encode(hashlib.sha256(b"module").digest()).rstrip(b"=").decode()
        assert wheel.read("pkg-1.dist-info/RECORD").decode().splitlines() == [
            "pkg/__init__.py,sha256=abc,6",
            f"pkg/_native_v3.so,sha256={digest},6",
            "pkg-1.dist-info/RECORD,,",
        ]
