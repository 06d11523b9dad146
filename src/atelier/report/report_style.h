#pragma once

#include <string_view>

namespace atelier::report {

/// The report's style sheet.
inline constexpr std::string_view report_style = R"css(
:root { color-scheme: light dark; --ground: #ffffff; --panel: #f5f6f8; --text: #1b1f24;
    --faint: #5b6470; --rule: #dfe3e8;
  --accent: #2f6ea8; --good: #23784c; --warn: #9a6200; --bad: #b3362f; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --panel: #1d2128;
    --text: #e4e7eb; --faint: #9aa4b0; --rule: #323943;
  --accent: #7db4e6; --good: #63c08f; --warn: #e0ad52; --bad: #ee837b; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.55 system-ui,
    -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
.subtitle { color: var(--faint); margin: 0 0 1.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .7rem; padding-top: .9rem;
    border-top: 1px solid var(--rule); scroll-margin-top: .5rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p { max-width: 46rem; margin: .6rem 0; overflow-wrap: anywhere; white-space: pre-line; }
nav { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0 0 1.2rem; }
nav a { color: var(--accent); text-decoration: none; border: 1px solid var(--rule);
    border-radius: 1rem; padding: .1rem .75rem; font-size: .88rem; }
nav a:hover { border-color: var(--accent); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem;
    margin: 1rem 0; padding: 0; }
.facts div { background: var(--panel); border-radius: .5rem; padding: .6rem .8rem; }
.facts dt { color: var(--faint); font-size: .82rem; }
.facts dd { margin: 0; font-size: 1.1rem; font-weight: 600; font-variant-numeric: tabular-nums;
    overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums;
    min-width: 22rem; }
caption { text-align: left; color: var(--faint); padding-bottom: .4rem; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--rule); text-align: left;
    vertical-align: baseline; }
th { font-weight: 600; color: var(--faint); vertical-align: bottom; }
td:first-child, th:first-child { min-width: 6.5rem; position: sticky; left: 0;
    background: var(--ground); }
.number { text-align: right; }
td.number { white-space: nowrap; }
tr.best td { font-weight: 650; color: var(--good); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
    gap: 1.2rem; align-items: start; margin: 1rem 0; }
figure { margin: 0; min-width: 0; }
.alone { max-width: 34rem; margin: 1rem 0; }
figure svg { display: block; width: 100%; height: auto; }
figure img { display: block; max-width: 100%; height: auto; image-rendering: pixelated;
    border-radius: .25rem; }
.columns { display: grid; gap: 2px; font-size: .68rem; line-height: 1.15; color: var(--faint);
    align-items: end; text-align: center; margin-bottom: .25rem; }
.columns span { overflow-wrap: anywhere; min-width: 0; }
figure img.wide { width: 100%; }
figcaption { color: var(--faint); font-size: .86rem; margin-top: .4rem; max-width: 40rem;
    white-space: pre-line; overflow-wrap: anywhere; }
.findings { list-style: none; margin: .8rem 0; padding: 0; max-width: 46rem; }
.findings li { display: grid; grid-template-columns: 5.6rem 1fr; gap: .6rem; padding: .4rem 0;
    border-bottom: 1px solid var(--rule); overflow-wrap: anywhere; }
.findings b { font-size: .82rem; padding-top: .1rem; }
.ok b { color: var(--good); } .warning b { color: var(--warn); } .collapse b { color: var(--bad); }
details { margin: .8rem 0; background: var(--panel); border-radius: .5rem; padding: .5rem .8rem; }
summary { cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; font: .82rem/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
    margin: .6rem 0 .2rem; }
@media (max-width: 34rem) { table { font-size: .82rem; min-width: 0; }
    th, td { padding-right: .5rem; } }
@media print { nav { display: none; } .scroll { overflow: visible; }
    table { font-size: .75rem; } h2 { break-after: avoid; } figure, table, li {
    break-inside: avoid; } }
)css";

}  // namespace atelier::report
