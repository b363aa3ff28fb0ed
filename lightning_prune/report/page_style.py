"""How the report's page looks: light, dark, on a phone and on paper."""

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --back: #fbfbfa; --card: #ffffff; --ink: #1d2126; --faint: #5e6670; --rule: #dfe2e6;
  --accent: #0b62a8; --heads: #0072b2; --kv: #e69f00; --neurons: #009e73; --value: #7b5ea7;
  --dense: #e3e6ea; --zero: #0b4f8a; --on: #ffffff; --loss: #0072b2; --good: #1a7f4b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14171b; --card: #1b1f24; --ink: #e7e9ec; --faint: #a0a8b2; --rule: #333a42;
    --accent: #74b9f0; --heads: #4aa8e0; --kv: #f0b73e; --neurons: #38c29a; --value: #b59be0;
    --dense: #323a43; --zero: #5fb2f2; --on: #0e1419; --loss: #4aa8e0; --good: #5fcf96;
  }
}
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
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
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
td:last-child, th:last-child { padding-right: 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr));
  gap: 18px 26px; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 14px; font-weight: 600; margin-bottom: 4px; }
.key { font-weight: 400; color: var(--faint); font-size: 13px; margin-left: 10px;
  white-space: nowrap; }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px;
  margin-right: 5px; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 11px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, "DejaVu Sans",
  sans-serif; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .m { text-anchor: middle; } svg .e { text-anchor: end; } svg .faint { fill: var(--faint); }
svg .halo { paint-order: stroke; stroke: var(--back); stroke-width: 3px; }
svg .on { fill: var(--on); }
.heads { fill: var(--heads); background: var(--heads); }
.kv { fill: var(--kv); background: var(--kv); }
.neurons { fill: var(--neurons); background: var(--neurons); }
.value { fill: var(--value); background: var(--value); }
.dense { fill: var(--dense); background: var(--dense); }
.zero { fill: var(--zero); background: var(--zero); }
.scale { background: linear-gradient(90deg, var(--card), var(--zero));
  border: 1px solid var(--rule); }
.key i.scale { width: 54px; }
.cell { fill: var(--card); stroke: var(--rule); stroke-width: 0.6; }
.grid { stroke: var(--rule); stroke-width: 0.7; } .axis { stroke: var(--faint); }
.level { stroke: var(--faint); stroke-dasharray: 4 4; }
.line { fill: none; stroke: var(--loss); stroke-width: 1.8; stroke-linejoin: round; }
.dot { fill: var(--loss); }
.line.pale { opacity: 0.32; stroke-width: 1; }
.line.perplexity { stroke: var(--neurons); } .dot.perplexity { fill: var(--neurons); }
.sayings { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 12px; }
.saying { background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 10px 14px; overflow-wrap: anywhere; }
.saying.prompt { border-style: dashed; margin: 8px 0 12px; }
.saying .name { font-size: 13px; color: var(--faint); }
.saying .text { white-space: pre-wrap; }
.settings { display: grid; gap: 4px 40px;
  grid-template-columns: repeat(auto-fit, minmax(min(280px, 100%), 1fr)); }
dl { display: grid; align-content: start;
  grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 6px 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 520px) {
  main { padding: 18px 14px 36px; } h1 { font-size: 21px; } .tile .figure { font-size: 21px; }
  .tiles { grid-template-columns: 1fr 1fr; } th, td { padding-right: 12px; }
  table { font-size: 13px; } th { font-size: 12px; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; } .key { margin-left: 0;
  margin-right: 10px; } figcaption span.title { display: block; }
}
@media print {
  :root { --back: #fff; --card: #fff; } main { max-width: none; padding: 0; }
  .saying, .tile, figure, tr { break-inside: avoid; }
}
"""
