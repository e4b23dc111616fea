"""Real helm, of one major: renders a chart, lints it, installs it; its folders are the test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from tests.chart.documents import Render
from tests.chart.tools import ROOT, tools_of

CHART = ROOT / "charts" / "omni"
RELEASE = "omni"
NAMESPACE = "team"
# What is rendered for unless a test says otherwise: the newest that is supported.
NEWEST = "1.37.0"
OLDEST = "1.29.0"
_SECONDS = 60


class Refused(Exception):
    """Helm ended with an error; this is what it wrote."""


@dataclass(frozen=True)
class Helm:
    """One helm program. `environment` is all that it sees of ours."""

    major: int
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str | Path, seconds: float = _SECONDS) -> str:
        """What helm writes. Raises Refused when it fails, TimeoutExpired when it takes too long."""
        tools = tools_of(self.major)
        done = subprocess.run(
            [tools / "helm", *map(str, arguments)],
            env={"HOME": str(self.home), "PATH": f"{tools}:/usr/bin:/bin", **self.environment},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise Refused(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def render(
        self,
        *,
        chart: Path = CHART,
        values: Mapping[str, object] | None = None,
        files: Iterable[str] = (),
        release: str = RELEASE,
        kube_version: str = NEWEST,
        api_versions: Sequence[str] = (),
    ) -> Render:
        """The chart's documents with these values over those files of the chart's folder."""
        return Render(
            self.manifests(
                chart=chart,
                values=values,
                files=files,
                release=release,
                kube_version=kube_version,
                api_versions=api_versions,
            )
        )

    def manifests(
        self,
        *,
        chart: Path = CHART,
        values: Mapping[str, object] | None = None,
        files: Iterable[str] = (),
        release: str = RELEASE,
        kube_version: str = NEWEST,
        api_versions: Sequence[str] = (),
    ) -> str:
        """As `render`, unread."""
        options = ["--namespace", NAMESPACE, "--kube-version", kube_version]
        options += [option for name in files for option in ("--values", str(chart / name))]
        options += [option for version in api_versions for option in ("--api-versions", version)]
        return self("template", release, chart, *options, *self.as_options(values))

    def as_options(self, values: Mapping[str, object] | None) -> list[str]:
        """Values as a file of their own: what --set does to types is not under test."""
        if not values:
            return []
        text = yaml.safe_dump(dict(values))
        path = self.home / f"values-{abs(hash(text)):x}.yaml"
        path.write_text(text)
        return ["--values", str(path)]
