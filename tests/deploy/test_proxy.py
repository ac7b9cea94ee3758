"""The proxy's own check of its configuration."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.deploy.manifests import DEPLOY
from tests.programs import deploy_program

SERVERS = [f"127.0.0.1:{port}" for port in range(50051, 50055)]


def test_nginx_accepts_its_file(tmp_path: Path) -> None:
    text = (DEPLOY / "proxy" / "nginx.conf").read_text()
    assert re.findall(r"^    server (\S+)", text, re.MULTILINE) == SERVERS
    settings = tmp_path / "nginx.conf"
    settings.write_text(text.replace("/run/", f"{tmp_path}/"))
    nginx = deploy_program("nginx", "apt-get install nginx-light")
    done = subprocess.run(
        [nginx, "-t", "-c", settings], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr
