"""The style sheet of the report: one accent colour, light and dark themes."""

CSS = """
:root{--paper:#fbfaf7;--card:#fff;--ink:#1c1d22;--soft:#62656f;--line:#e3e0d8;--grid:#ece9e2;
--ours:#c8431b;--other:#9aa0ac;--band:.16;--s0:#c8431b;--s1:#2f6690;--s2:#5b8c5a;--s3:#8e5aa8;
--s4:#b8860b;--s5:#4a4e57;--code:#f3f1eb}
@media(prefers-color-scheme:dark){:root{--paper:#141519;--card:#1b1d22;--ink:#e9e7e2;
--soft:#9b9eaa;--line:#2e3138;--grid:#26282f;--ours:#ff8459;--other:#6b717d;--band:.2;
--s0:#ff8459;--s1:#7ab6e0;--s2:#8cc48a;--s3:#c79be0;--s4:#e0b84e;--s5:#a9adb8;--code:#1b1d22}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main,footer{max-width:1060px;margin:0 auto;padding:0 28px}
header{padding:56px 0 8px}
.eyebrow{margin:0 0 14px;color:var(--soft);font-size:14px;letter-spacing:.04em}
h1{margin:0;max-width:24em;font:400 clamp(27px,4.3vw,44px)/1.2 "Iowan Old Style",
"Palatino Linotype",Palatino,"Book Antiqua",Georgia,"DejaVu Serif",serif;
letter-spacing:-.012em;text-wrap:balance}
h1 b{font-weight:600}h1 b.ours{color:var(--ours)}
h2{margin:0 0 6px;font-size:20px;font-weight:650;letter-spacing:-.005em}
h3{margin:30px 0 6px;font-size:16px;font-weight:650}
section{padding:34px 0 6px}
section+section,aside+section{border-top:1px solid var(--line);margin-top:28px}
.note{margin:0 0 18px;max-width:62em;color:var(--soft);font-size:14.5px}
.boxes{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:1px;
margin:34px 0 28px;background:var(--line);border:1px solid var(--line);border-radius:10px;
overflow:hidden}
.boxes div{display:flex;flex-direction:column-reverse;justify-content:flex-end;padding:16px 18px;
background:var(--card)}
.boxes dd{margin:0;font-size:25px;font-weight:600;letter-spacing:-.01em;white-space:nowrap}
.boxes dt{color:var(--soft);font-size:13.5px;line-height:1.4}
.boxes div:first-child dd{color:var(--ours)}
.missing{margin:20px 0 24px;padding:4px 18px;border-left:3px solid var(--ours);
background:var(--card)}p.missing{padding:10px 18px}
figure{margin:0}
.wall img{display:block;width:100%;height:auto;border-radius:3px;image-rendering:pixelated;
background:var(--grid)}
.wall.smooth img{image-rendering:auto}
.wall.one{display:grid;gap:14px 12px;grid-template-columns:repeat(auto-fill,minmax(84px,1fr))}
.wall figcaption{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;color:var(--soft);
font-size:13px}
.wall.one figure{display:flex;flex-direction:column-reverse}
.wall.one figcaption{padding-top:5px;text-align:center}
.pairs{display:grid;gap:22px 16px;grid-template-columns:repeat(auto-fill,minmax(140px,1fr))}
.pairs img,.matrix img{display:block;width:100%;height:auto;border-radius:3px;
image-rendering:pixelated;background:var(--grid)}.pairs.smooth img{image-rendering:auto}
.pairs figcaption{padding-top:6px;font-size:13.5px;line-height:1.35;overflow-wrap:anywhere}
.pairs small{display:block;color:var(--soft);font-size:12.5px}
.matrix{max-width:420px}.matrix figcaption{margin-bottom:6px;color:var(--soft);font-size:13.5px}
.recalls td:first-child{min-width:170px;font-weight:550}.recalls .num{padding-right:16px}
.scale{display:flex;align-items:center;gap:10px;margin-top:10px;color:var(--soft);font-size:13px}
.scale i{flex:1;height:10px;border-radius:2px;
background:linear-gradient(90deg,#2f6690,#f6f4ef,#c8431b)}
.wall.one.ten{grid-template-columns:repeat(10,1fr)}
.wall.few figure,.wall.many figure{display:grid;grid-template-columns:118px 1fr;align-items:center;
gap:12px;padding:3px 0}
.wall.few .tiles{display:grid;grid-template-columns:repeat(10,1fr);gap:6px}
.wall.many .tiles{display:grid;grid-template-columns:repeat(var(--columns),1fr);gap:3px}
.wall.many figure{padding:6px 0}
.wall:not(.one) figcaption{text-align:right}
.wall.alike .tiles{grid-template-columns:repeat(5,1fr);gap:8px 22px}
.wall.alike .tiles div{display:grid;grid-template-columns:1fr 1fr;gap:2px}
.wall.alike small{grid-column:1/-1;color:var(--soft);font-size:12px;line-height:1.3}
.paths{max-width:760px}.quality td small{max-width:46em}
.seen{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:18px}
.seen img{display:block;width:100%;height:auto;border-radius:3px}
.seen figcaption{padding-top:6px;color:var(--soft);font-size:13.5px}
.sets{display:grid;grid-template-columns:170px repeat(var(--columns),minmax(0,72px));gap:5px;
align-items:end}
.sets b{align-self:center;padding-right:10px;font-size:14px;font-weight:550;line-height:1.3;
overflow-wrap:anywhere}
.sets b small{display:block;color:var(--soft);font-size:13px;font-weight:400}
.sets span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;color:var(--soft);
font-size:12.5px;text-align:center}
.sets .stack{display:grid;gap:5px;margin-bottom:9px}
.after{margin:14px 0 0}
.unlike b{font-weight:500}.unlike div+div{margin-top:6px}.unlike small{display:block;
color:var(--soft);font-size:13px}
.bars{position:relative;margin-top:8px}.bars+.note{margin:16px 0 0}
.row,.ticks{display:grid;grid-template-columns:230px 1fr 130px;gap:18px;align-items:center}
.row{padding:9px 0}
.label{line-height:1.3;font-weight:550}
.label small,td small{display:block;color:var(--soft);font-size:13px;font-weight:400}
.track{position:relative;height:30px;border-radius:3px;background:linear-gradient(90deg,
var(--line) 1px,transparent 1px) 0 0/25% 100%,var(--grid)}
.bar{position:absolute;inset:0 auto 0 0;border-radius:3px;background:var(--other)}
.ours .bar{background:var(--ours)}
.paper .bar{background:repeating-linear-gradient(115deg,var(--other) 0 2px,transparent 2px 6px);
border:1px solid var(--other)}
.std{position:absolute;top:50%;height:0;border-top:2px solid var(--ink)}
.std:before,.std:after{content:"";position:absolute;top:-5px;height:8px;border-left:2px solid
var(--ink)}
.std:before{left:-1px}.std:after{right:-1px}
.value{font-weight:600;white-space:nowrap}
.row.ours .value,tr.ours td.num{color:var(--ours)}
.track u{position:absolute;top:-3px;bottom:-3px;border-left:3px solid var(--ink);margin-left:-1px}
.track u.random,.keys u.random{border-color:var(--s1)}
.track u.published,.keys u.published{border-left-style:dotted;border-color:var(--ink)}
.keys u{display:inline-block;width:0;height:13px;margin-right:8px;border-left:3px solid;
vertical-align:-2px}
.row.run .bar{background:var(--other)}
.ticks{color:var(--soft);font-size:12.5px}
.ticks{display:flex;justify-content:space-between;margin:0 148px 0 248px}
.ticks span{width:0;display:flex;justify-content:center}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));
gap:22px 34px;margin-top:12px}
.charts figure{max-width:560px} /* a chart alone is not blown up */
.charts .tall{grid-row:span 2}
.charts figcaption,.code figcaption{margin-bottom:6px;color:var(--soft);font-size:14.5px}
.chart{display:block;width:100%;height:auto;font:12.5px system-ui,-apple-system,"Segoe UI",
sans-serif}
.chart text{fill:var(--soft)}
.chart .middle{text-anchor:middle}.chart .end{text-anchor:end}
.chart .grid{stroke:var(--grid)}.chart .axis{stroke:var(--other)}
.chart .mark{stroke:var(--s5);stroke-width:1.5;stroke-dasharray:6 4}
.chart .mark.m1{stroke-dasharray:1.5 4}
.chart .line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.chart .band{fill:currentColor;opacity:var(--band)}
.chart .dot{fill:var(--paper);stroke:currentColor;stroke-width:2}
.s0{color:var(--s0)}.s1{color:var(--s1)}.s2{color:var(--s2)}.s3{color:var(--s3)}
.s4{color:var(--s4)}.s5{color:var(--s5)}
.scroll{overflow-x:auto}
table{width:100%;border-collapse:collapse;font-size:15px}
th,td{padding:9px 14px 9px 0;border-bottom:1px solid var(--line);text-align:left;
vertical-align:middle}
thead th{color:var(--soft);font-size:13px;font-weight:500}
td.num,th.num{text-align:right;white-space:nowrap;padding-right:28px}
td.strip,th.strip{width:46%;padding-right:8px}
tr.ours td.num.aside{color:inherit}tr.base td{color:var(--soft)}
.dots{position:relative;height:22px;border-radius:3px;background:linear-gradient(90deg,var(--line)
1px,transparent 1px) 0 0/25% 100%,var(--grid)}
.dots i{position:absolute;top:6px;width:10px;height:10px;margin-left:-5px;border-radius:50%;
background:var(--s5);opacity:.5}
.ours .dots i{background:var(--ours)}
.dots u{position:absolute;top:0;bottom:0;border-left:2px solid var(--ink)}
.seeds{margin-top:22px}.seeds table{width:auto;min-width:min(100%,480px)}
.facts th{width:230px;color:var(--soft);font-weight:500;vertical-align:top}
.facts td{overflow-wrap:anywhere}
.code{columns:2 460px;column-gap:22px;margin-top:12px}
.code figure{break-inside:avoid;margin-bottom:18px}
pre{margin:0;padding:14px 16px;white-space:pre-wrap;overflow-wrap:anywhere;
border:1px solid var(--line);border-radius:8px;
background:var(--code);font:13px/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",
monospace}
details{margin-top:14px}summary{cursor:pointer;color:var(--soft);font-size:14.5px;margin-bottom:8px}
.stages{display:flex;gap:2px;height:18px;margin:12px 0 10px;border-radius:4px;overflow:hidden}
.across td:first-child,.costs td:first-child{min-width:110px}
td .stages{margin:0;height:14px;min-width:120px}.costs td.num,.costs th.num{padding-right:14px}
.costs{font-size:14px}
.stages i{min-width:2px;background:currentColor}
.keys{display:flex;flex-wrap:wrap;gap:4px 22px;margin:0 0 12px;padding:0;list-style:none;
font-size:14px;color:var(--soft)}
.keys i{display:inline-block;width:10px;height:10px;margin-right:7px;border-radius:2px;
background:currentColor}
.keys u.m0,.keys u.m1{width:22px;height:0;border:0;border-top:2px dashed var(--s5);
vertical-align:4px}.keys u.m1{border-top-style:dotted}
.keys b{color:var(--ink);font-weight:600}
footer{padding-top:26px;padding-bottom:44px;color:var(--soft);font-size:13px}
@media(max-width:640px){main,footer{padding:0 18px}header{padding-top:34px}
.boxes{grid-template-columns:1fr 1fr}.boxes dd{font-size:20px}.boxes div{padding:13px 14px}
.row{grid-template-columns:1fr auto;gap:4px 12px;padding:11px 0}.row .track{grid-row:2;
grid-column:1/-1;height:24px}.ticks{margin:0}
.wall.few figure,.wall.many figure{grid-template-columns:1fr;gap:4px;padding:7px 0}
.wall:not(.one) figcaption{text-align:left}
.wall.few .tiles{grid-template-columns:repeat(5,1fr);gap:4px}
.wall.alike .tiles{grid-template-columns:repeat(3,1fr);gap:8px 12px}.seen{
grid-template-columns:1fr 1fr;gap:12px}
.wall.many .tiles{grid-template-columns:repeat(10,1fr)}
.wall.one{gap:12px 8px;grid-template-columns:repeat(auto-fill,minmax(64px,1fr))}
.wall.one.ten{grid-template-columns:repeat(5,1fr)}
.sets{grid-template-columns:repeat(var(--columns),1fr);gap:3px}.sets b{grid-column:1/-1;
padding-top:6px}.sets .stack{gap:3px;margin-bottom:4px}.sets span{font-size:10px}
.cards thead{display:none}.cards tbody tr{display:grid;grid-template-columns:repeat(3,1fr);
gap:8px 10px;padding:10px 0;border-bottom:1px solid var(--line)}.cards tbody td{display:block;
min-width:0;width:auto;padding:0;border:0;text-align:left;white-space:normal}
.cards tbody td:first-child,.cards tbody td.strip{grid-column:1/-1}
.cards td[data-head]:before{content:attr(data-head);display:block;color:var(--soft);
font-size:12.5px;font-weight:400}
.recalls tbody tr{align-items:end}
.facts th{width:34%}td.strip,th.strip{min-width:150px}th,td{padding-right:10px}td.num,
th.num{padding-right:16px}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""
