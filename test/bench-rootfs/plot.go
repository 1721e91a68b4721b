package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
)

// Sizes of the plot, in pixels. There is a panel for the fewest and one for the
// most root filesystems at once.
const (
	panelWidth, panelHeight = 400.0, 330.0
	marginLeft, marginTop   = 60.0, 64.0
	gap                     = 40.0
	legendWidth             = 130.0
	plotHeight              = marginTop + panelHeight + 56
)

// plotted are the ways in the plot, and their colours, which can be told from
// one another on white and on black, and by people who see few colours.
var plotted = []curve{
	{perLayer, "#d55e00", ""},
	{commonParent, "#b07aa1", "6 4"},
	{plainMount, "#8c8c8c", "2 3"},
	{ours, "#2f7fd0", ""},
	{onBase, "#009e73", ""},
}

// curve is a way, as it is drawn.
type curve struct{ way, colour, dash string }

func (c curve) label() string {
	if c.way == plainMount {
		return c.way + ", unmapped"
	}
	return c.way
}

// plotStyle follows the reader's choice of light or dark.
const plotStyle = `<style>
text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:14px;font-weight:600}
.grid{stroke:#8884;stroke-width:1}path{fill:none;stroke-width:2}
@media(prefers-color-scheme:dark){text{fill:#ddd}}
</style>
`

// axis is a logarithmic one.
type axis struct{ low, high, from, to float64 }

func (a axis) at(x float64) float64 {
	return a.from + (a.to-a.from)*math.Log(x/a.low)/math.Log(a.high/a.low)
}

// draw writes the time until ready by layers as an SVG.
func (r *results) draw(file string, h *host) error {
	var b strings.Builder
	panels := []int{slices.Min(r.parallel), slices.Max(r.parallel)}
	width := marginLeft + 2*panelWidth + gap + legendWidth
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img" aria-label="Time to make a root filesystem, by layers">`+"\n", width, plotHeight)
	b.WriteString(plotStyle)
	fmt.Fprintf(&b, `<text class="title" x="%.0f" y="20">Time to make a root filesystem with an ID mapping, by layers of the image (µs each, lower is better)</text>`+"\n", marginLeft)
	low, high := r.bounds(panels)
	for i, n := range panels {
		left := marginLeft + float64(i)*(panelWidth+gap)
		x := axis{float64(slices.Min(r.layers)), float64(max(slices.Max(r.layers), 2)), left + 12, left + panelWidth - 12}
		y := axis{low, high, marginTop + panelHeight, marginTop}
		fmt.Fprintf(&b, `<text class="title" x="%.0f" y="%.0f">%d at once</text>`+"\n", left, marginTop-12, n)
		r.drawPanel(&b, n, x, y, left, i == 0)
	}
	r.drawLegend(&b, axis{low, high, marginTop + panelHeight, marginTop}, marginLeft+2*panelWidth+gap+10, panels[1])
	fmt.Fprintf(&b, `<text x="%.0f" y="%.0f">%s</text>`+"\n</svg>\n", marginLeft, plotHeight-8, h.describe())
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

// value is what the plot shows of a way; a mount(2) has no ID mapping.
func (r *results) value(way string, layers, parallel int) float64 {
	return r.typical(place{key{r.wayNamed(way), layers, way != plainMount}, parallel}, ready)
}

// bounds are powers of ten around all values.
func (r *results) bounds(panels []int) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, p := range plotted {
		for _, layers := range r.layers {
			for _, n := range panels {
				if v := r.value(p.way, layers, n); !math.IsNaN(v) {
					low, high = min(low, v), max(high, v)
				}
			}
		}
	}
	return math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
}

func (r *results) drawPanel(b *strings.Builder, n int, x, y axis, left float64, labelled bool) {
	for v := y.low; v <= y.high*1.01; v *= 10 {
		fmt.Fprintf(b, `<line class="grid" x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f"/>`+"\n", left, left+panelWidth, y.at(v), y.at(v))
		if labelled {
			fmt.Fprintf(b, `<text x="%.0f" y="%.1f" text-anchor="end">%.0f</text>`+"\n", left-6, y.at(v)+4, v)
		}
	}
	for _, layers := range r.layers {
		fmt.Fprintf(b, `<text x="%.1f" y="%.0f" text-anchor="middle">%d</text>`+"\n", x.at(float64(layers)), y.from+18, layers)
	}
	for _, p := range plotted {
		var path []string
		for _, layers := range r.layers {
			v := r.value(p.way, layers, n)
			if math.IsNaN(v) {
				continue
			}
			px, py := x.at(float64(layers)), y.at(v)
			path = append(path, fmt.Sprintf("%.1f %.1f", px, py))
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%s, %s: %.0f µs</title></circle>`+"\n", px, py, p.colour, p.way, layersWord(layers), v)
		}
		if len(path) > 0 {
			fmt.Fprintf(b, `<path d="M%s" stroke="%s" stroke-dasharray="%s"/>`+"\n", strings.Join(path, "L"), p.colour, p.dash)
		}
	}
}

// drawLegend names the lines where they end, one below the other.
func (r *results) drawLegend(b *strings.Builder, y axis, left float64, parallel int) {
	const apart = 16.0
	type label struct {
		way, colour string
		y           float64
	}
	var labels []label
	for _, p := range plotted {
		for _, layers := range slices.Backward(r.layers) {
			if v := r.value(p.way, layers, parallel); !math.IsNaN(v) {
				labels = append(labels, label{p.label(), p.colour, y.at(v) + 4})
				break
			}
		}
	}
	slices.SortFunc(labels, func(a, b label) int { return int(a.y - b.y) })
	for i, l := range labels {
		if i > 0 && l.y < labels[i-1].y+apart {
			l.y = labels[i-1].y + apart
			labels[i] = l
		}
		fmt.Fprintf(b, `<text x="%.0f" y="%.1f" style="fill:%s;font-weight:600">%s</text>`+"\n", left, l.y, l.colour, l.way)
	}
}
