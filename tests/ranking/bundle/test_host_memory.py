"""Whether a bundle fits into memory, with limits that a test writes."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from conf.errors import InputError
from ranking.bundle.host_memory import (
    Room,
    bytes_needed,
    check_memory,
    killed_since,
    memory_kills,
    private_bytes,
    room,
)

MB = 2**20


def machine(root: Path, available_kb: int) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\n\nMemAvailable: {available_kb} kB\n")
    return root


def group(folder: Path, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def test_the_machines_available_memory_is_the_room(tmp_path: Path) -> None:
    assert room(machine(tmp_path, 2048)) == Room(2 * MB, "of this machine's memory")


def test_without_anything_known_there_is_no_room_to_compare(tmp_path: Path) -> None:
    assert room(tmp_path) is None
    check_memory(10**15, "model v", None, "advice")  # no error


def test_a_containers_limit_counts_without_droppable_pages(tmp_path: Path) -> None:
    machine(tmp_path, 10**7)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    base = tmp_path / "sys/fs/cgroup"
    group(
        base, memory__max=100 * MB, memory__current=60 * MB, memory__stat=f"anon 5\ninactive_file {20 * MB}"
    )
    assert room(tmp_path) == Room(60 * MB, "of the container's limit of 100 MB")
    (base / "memory.max").write_text("max\n")
    found = room(tmp_path)
    assert found is not None
    assert found.where == "of this machine's memory"


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    machine(tmp_path, 10**7)
    (tmp_path / "proc/self/cgroup").write_text("0::/pod/app\n")
    base = tmp_path / "sys/fs/cgroup"
    group(base / "pod/app", memory__max=500 * MB, memory__current=100 * MB)
    group(base / "pod", memory__max=300 * MB, memory__current=250 * MB)
    assert room(tmp_path) == Room(50 * MB, "of the container's limit of 300 MB")


def test_limits_of_the_first_version_of_control_groups(tmp_path: Path) -> None:
    machine(tmp_path, 10**7)
    (tmp_path / "proc/self/cgroup").write_text("4:cpu,memory:/elsewhere/on/the/host\n1:cpu:/\n")
    group(
        tmp_path / "sys/fs/cgroup/memory",
        memory__limit_in_bytes=64 * MB, memory__usage_in_bytes=70 * MB,
        memory__stat=f"total_inactive_file {16 * MB}",
    )  # fmt: skip
    assert room(tmp_path) == Room(10 * MB, "of the container's limit of 64 MB")
    (tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    found = room(tmp_path)
    assert found is not None
    assert found.where == "of this machine's memory"


def test_an_address_space_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, 10**7)
    (tmp_path / "proc/self/statm").write_text("256 1 1 1 0 1 0\n")
    monkeypatch.setattr("os.sysconf", lambda name: 4096)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (3 * MB, 3 * MB))
    assert room(tmp_path) == Room(2 * MB, "of the address space that ulimit -v leaves, 3 MB")


def test_too_little_is_one_line_with_both_amounts_and_what_to_do() -> None:
    found = Room(1000 * MB, "of the container's limit of 1,024 MB")
    check_memory(1000 * MB, "model v1", found, "raise the limit")
    with pytest.raises(InputError) as caught:
        check_memory(1500 * MB, "model v1", found, "raise the limit")
    assert str(caught.value) == (
        "too little memory for model v1: it takes about 1,500 MB, and 1,000 MB are free (of the container's "
        "limit of 1,024 MB); raise the limit, or set memory_check=false if the estimate is wrong"
    )


def test_the_estimate_is_of_all_files_and_once_of_the_libraries(tmp_path: Path) -> None:
    assert bytes_needed(tmp_path) == 690 * MB
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(5 * MB))
    assert bytes_needed(tmp_path) == (600 + 90 + 9) * MB
    assert bytes_needed(tmp_path, libraries=False) == (90 + 9) * MB


def test_kills_for_want_of_memory_are_those_of_the_container_or_of_the_machine(tmp_path: Path) -> None:
    assert memory_kills(tmp_path) == 0
    assert killed_since(0, tmp_path) == ""
    machine(tmp_path, 10**7)
    (tmp_path / "proc/vmstat").write_text("pgfault 12\noom_kill 7\n")
    assert memory_kills(tmp_path) == 7
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/shop\n")
    group(tmp_path / "sys/fs/cgroup/memory/shop", memory__oom_control="under_oom 0\noom_kill 2")
    assert memory_kills(tmp_path) == 2
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    base = tmp_path / "sys/fs/cgroup"
    group(base, memory__max=100 * MB, memory__current=60 * MB, memory__events="oom 9\noom_kill 3")
    assert memory_kills(tmp_path) == 3
    assert killed_since(3, tmp_path) == ""
    assert killed_since(1, tmp_path) == (
        "the kernel has ended 2 processes for want of memory; 40 MB are free now "
        "(of the container's limit of 100 MB)"
    )


def test_private_memory_is_what_no_other_process_has(tmp_path: Path) -> None:
    assert private_bytes(5, tmp_path) == 0
    (tmp_path / "proc/5").mkdir(parents=True)
    (tmp_path / "proc/5/smaps_rollup").write_text(
        "0-7fff ---p 00000000 00:00 0 [rollup]\nRss: 900 kB\nPrivate_Clean: 100 kB\nPrivate_Dirty: 30 kB\n"
    )
    assert private_bytes(5, tmp_path) == 130 * 1024
