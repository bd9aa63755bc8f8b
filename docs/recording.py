"""Records docs/recording.svg: tailscaled stops, and no target is lost.

python docs/recording.py    write the file; `make docs` does the same
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from terminal import ROOT, SOCKET, Terminal

HOMELAB = ROOT / "examples/homelab"
COLUMNS = 92
LINE_HEIGHT = 18
CHARACTER = 8.4
CONFIG = f"""\
inventory: {{file: inventory.json}}
backends: {{tailscale: {{tailnet: {{socket: {SOCKET}}}}}}}
output: {{directory: targets}}
"""
STYLE = """\
    .frame { fill: #f6f8fa; stroke: #d0d7de; }
    text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2328; }
    .prompt { fill: #1a7f37; font-weight: bold; }
    .note { fill: #59636e; }
    @media (prefers-color-scheme: dark) {
      .frame { fill: #0d1117; stroke: #3d444d; }
      text { fill: #e6edf3; }
      .prompt { fill: #3fb950; }
      .note { fill: #9198a1; }
    }
"""


def recorded() -> list[str]:
    """Run the commands and return the lines of the terminal."""
    files = {"clan-discovery.yaml": CONFIG.encode(), "inventory.json": (HOMELAB / "inventory.json").read_bytes()}
    with Terminal(files, (HOMELAB / "status.json").read_bytes(), COLUMNS) as terminal:
        lines = ["$ clan-discovery show", *terminal.type("show")[1], ""]
        terminal.type("refresh")
        terminal.stop_tailscaled()
        lines += ["$ systemctl stop tailscaled     # seven minutes ago"]
        lines += ["$ clan-discovery refresh", *terminal.type("refresh")[1], ""]
        lines += ["$ clan-discovery explain db", *terminal.type("explain", "db")[1]]
    return lines


def drawn(lines: list[str]) -> str:
    """Return an SVG of a terminal that shows these lines, as text."""
    width = round(COLUMNS * CHARACTER) + 32
    height = len(lines) * LINE_HEIGHT + 32
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n',
        "  <title>A terminal: tailscaled is stopped for seven minutes, and clan-discovery loses no target</title>\n",
        f"  <style>\n{STYLE}  </style>\n",
        f'  <rect class="frame" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>\n',
    ]
    for number, line in enumerate(lines, 1):
        parts.append(f'  <text x="16" y="{number * LINE_HEIGHT + 12}" xml:space="preserve">{styled(line)}</text>\n')
    return "".join([*parts, "</svg>\n"])


def styled(line: str) -> str:
    """Return a line as SVG; a typed line has a prompt and perhaps a comment."""
    if not line.startswith("$ "):
        return escape(line)
    command, hash_, note = line.removeprefix("$ ").partition("#")
    comment = f'<tspan class="note">{escape(hash_ + note)}</tspan>' if hash_ else ""
    return f'<tspan class="prompt">$ </tspan>{escape(command)}{comment}'


def recording() -> str:
    """Return docs/recording.svg."""
    return drawn(recorded())


if __name__ == "__main__":
    (ROOT / "docs/recording.svg").write_text(recording())
