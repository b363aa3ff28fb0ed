"""How the report's page looks: light, dark, on a phone and on paper."""

from __future__ import annotations

from lightning_prune.report.svg import PALETTE

__all__ = ["STYLE"]


def _variables(shade: int) -> str:
    """The palette on a light page (0) or a dark one (1)."""
    return " ".join(f"--{name}: {shades[shade].lower()};" for name, shades in PALETTE.items())


COLOURS = f"""
:root {{
  color-scheme: light dark;
  --back: #fbfbfa; --accent: #0b62a8; {_variables(0)}
}}
@media (prefers-color-scheme: dark) {{
  :root {{ --back: #14171b; --accent: #74b9f0; {_variables(1)} }}
}}
"""
PARTS = "\n".join(
    f".f-{name} {{ fill: var(--{name}); background: var(--{name}); }} "
    f".s-{name} {{ stroke: var(--{name}); }}"
    for name in PALETTE
)
LAYOUT = """
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 1040px; margin: 0 auto; padding: 28px 20px 48px; }
header { margin-bottom: 22px; }
.kicker { color: var(--faint); font-size: 13px; margin: 0; }
h1 { font-size: 26px; line-height: 1.2; margin: 2px 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 34px 0 10px; padding-top: 14px; border-top: 1px solid var(--rule); }
h3 { font-size: 14px; margin: 14px 0 4px; }
p { margin: 6px 0; }
code, pre { font: 13px/1.45 ui-monospace, "SFMono-Regular", Menlo, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; }
a { color: var(--accent); }
.note, .meta { color: var(--faint); font-size: 13px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.tile { background: var(--paper); border: 1px solid var(--rule); border-radius: 8px;
  padding: 12px 14px; }
.tile .name { color: var(--faint); font-size: 13px; }
.tile .figure { font-size: 25px; font-weight: 650; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tile .detail { color: var(--faint); font-size: 13px; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 8px 0; }
th, td { text-align: left; padding: 5px 18px 5px 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
th { font-weight: 600; color: var(--faint); font-size: 13px; }
td.n, th.n { text-align: right; }
td.n, th, td:first-child { white-space: nowrap; }
td:nth-child(2) { min-width: 5em; }
td:last-child, th:last-child { padding-right: 0; }
td small, th small { color: var(--faint); font-size: 13px; font-weight: 400; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr));
  gap: 22px 26px; align-items: end; }
figure { margin: 0; min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figcaption { font-size: 14px; font-weight: 600; margin-bottom: 4px; }
figcaption .title { display: block; }
.key { font-weight: 400; color: var(--faint); font-size: 13px; margin-right: 12px;
  white-space: nowrap; }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px;
  margin-right: 5px; }
svg { display: block; width: 100%; height: auto; font-size: 11px; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, "DejaVu Sans",
  sans-serif; font-variant-numeric: tabular-nums; }
svg .halo { stroke: var(--back); }
.key i.fades { width: 54px; border: 1px solid var(--rule);
  background-image: linear-gradient(90deg, var(--back), transparent); }
.sayings { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 12px; }
.saying { background: var(--paper); border: 1px solid var(--rule); border-radius: 8px;
  padding: 10px 14px; overflow-wrap: anywhere; }
.saying.prompt { border-style: dashed; margin: 8px 0 12px; }
.saying .name { font-size: 13px; color: var(--faint); }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 12px; }
.image { background: var(--paper); border: 1px solid var(--rule); border-radius: 8px;
  padding: 8px; font-size: 13px; overflow-wrap: anywhere; }
.image img { width: 100%; image-rendering: pixelated; border-radius: 4px; display: block; }
.image .name { color: var(--faint); margin-top: 4px; }
.image .wrong { color: var(--worse, inherit); text-decoration: underline dotted; }
.saying .text { white-space: pre-wrap; }
.settings { display: grid; gap: 4px 40px;
  grid-template-columns: repeat(auto-fit, minmax(min(280px, 100%), 1fr)); }
dl { display: grid; align-content: start;
  grid-template-columns: minmax(auto, max-content) 1fr; gap: 3px 18px; margin: 6px 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 520px) {
  main { padding: 18px 14px 36px; } h1 { font-size: 21px; } .tile .figure { font-size: 21px; }
  .tiles { grid-template-columns: 1fr 1fr; } th, td { padding-right: 12px; }
  table { font-size: 13px; } th { font-size: 12px; }
  th small, td small { display: block; font-size: 12px; }
  dl { gap: 3px 14px; font-size: 14px; }
}
@media print {
  main { max-width: none; padding: 0; }
  .saying, .tile, figure, tr { break-inside: avoid; }
}
"""

PRINTED = f"@media print {{ :root {{ {_variables(0)} --back: #fff; }} }}\n"

STYLE = COLOURS + PARTS + LAYOUT + PRINTED
