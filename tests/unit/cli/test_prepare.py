"""What a mesh finds in its folders before its first process starts."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from omni_cli.errors import CommandError
from omni_cli.launcher.folders import Folders
from omni_cli.launcher.ground import MIB
from omni_cli.launcher.mesh import about_arenas, prepare
from omni_cli.launcher.plan import Encryption, Served, Tier, Wishes
from omni_cli.launcher.shape import shape
from omni_cli.serving import serve


def wished(encryption: Encryption | None = None) -> tuple[Wishes, tuple[Served, ...]]:
    wishes = Wishes((serve("echo"),), encryption=encryption)
    return wishes, shape(wishes)


def folders(tmp_path: Path, mib: int, *, in_memory: bool = True) -> Folders:
    run = tmp_path / "run"
    arenas = (tmp_path if in_memory else run) / "arenas"
    for folder in (run, arenas):
        folder.mkdir()
    return Folders(run, arenas, mib * MIB)


def test_every_pod_has_a_folder_and_every_relay_the_token(tmp_path: Path) -> None:
    wishes, served = wished()
    made = prepare(served, wishes, folders(tmp_path, 1000))
    assert sorted(path.name for path in (tmp_path / "arenas").iterdir()) == ["echo-back-0", "echo-front-0"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["echo.json", "mesh", "token"]
    tokens = {p.settings["OMNI_RELAY_TOKEN_FILE"] for p in made.processes if p.tier is Tier.RELAY}
    assert tokens == {str(tmp_path / "run" / "token")}


@pytest.mark.parametrize("encryption", ["tls", "aead"])
def test_processes_that_encrypt_find_what_their_settings_name(tmp_path: Path, encryption: Encryption) -> None:
    wishes, served = wished(encryption)
    made = prepare(served, wishes, folders(tmp_path, 1000))
    for process in made.processes:
        prefix = f"{process.service.upper()}_TLS_"
        files = [Path(process.settings[prefix + name]) for name in ("CA", "CERT", "KEY")]
        assert [b"PRIVATE" in file.read_bytes() for file in files] == [False, False, True]
        assert stat.S_IMODE(files[-1].stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("mib", "in_memory", "share", "said"),
    [
        (576, True, 64, []),
        (400, True, 44, ["There is room for 44 MiB of arena for each stage, not for 64 MiB."]),
        (1000, False, 64, ["There is no room in shared memory: the arenas are files in "]),
        (144, False, 16, ["There is no room in shared memory", "There is room for 16 MiB of arena"]),
    ],
)
def test_little_shared_memory_is_shared_out_and_told_of(
    tmp_path: Path, mib: int, in_memory: bool, share: int, said: list[str]
) -> None:
    wishes, served = wished()
    where = folders(tmp_path, mib, in_memory=in_memory)
    made = prepare(served, wishes, where)
    assert made.share == share * MIB
    assert sum(pod.arena for pod in made.pods) == 9 * share * MIB  # seven stages, two pods
    lines = list(about_arenas(made, wishes, where))
    assert [line.startswith(begin) for line, begin in zip(lines, said, strict=True)] == [True] * len(said)


def test_too_little_of_it_is_refused_before_anything_starts(tmp_path: Path) -> None:
    wishes, served = wished()
    with pytest.raises(CommandError, match="need 144 MiB at least; there is room for 143 MiB"):
        prepare(served, wishes, folders(tmp_path, 143))
