package capacity

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables anew")

const document = "../../CAPACITY.md"

var rates = []float64{10, 1_000, 100_000}

// latencies are the API's, in seconds.
var latencies = []float64{0.02, 0.2, 2}

// row begins with a cell and goes on with one for each value.
func row[T any](first string, values []T, cell func(T) string) string {
	cells := []string{first}
	for _, v := range values {
		cells = append(cells, cell(v))
	}
	return "| " + strings.Join(cells, " | ") + " |\n"
}

func ratesHead(first string) string {
	return row(first, rates, func(r float64) string { return grouped(r) + "/s" }) + "|---|---|---|---|\n"
}

// tables are those of the document, by name.
func tables() map[string]string {
	return map[string]string{"redis": redisTable(), "parts": partsTable(), "instances": instancesTable(), "bytes": bytesTable()}
}

func bytesTable() string {
	text := "| | requests | responses | status | kept RETENTION | ledger, kept LEDGER_TTL |\n|---|---|---|---|---|---|\n"
	for _, p := range profiles {
		text += fmt.Sprintf("| %s: %d bytes of params, %s of data | %.0f | %.0f | %.0f | %.0f | %.0f |\n", p.name, len(p.params), grouped(float64(p.answer)),
			p.bytes.requests, p.bytes.responses, p.bytes.status, p.bytes.streams(), p.bytes.ledger)
	}
	return text
}

func redisTable() string {
	text := ratesHead("Redis")
	for _, a := range []struct {
		name string
		ages
	}{{"default ages", defaultAges}, {"shortest ages", shortestAges}} {
		for _, p := range profiles {
			text += row(p.name+", "+a.name, rates, func(r float64) string { return gigabytes(redisBytes(p, r, a.ages)) })
		}
	}
	text += row("shards by memory, shortest ages, 300 GB each", rates, func(r float64) string {
		return grouped(float64(up(redisBytes(profiles[0], r, shortestAges), memorystoreGB*1e9)))
	})
	text += row("shards by memory, shortest ages, 88 GB each", rates, func(r float64) string {
		return grouped(float64(up(redisBytes(profiles[0], r, shortestAges), clusterNodeGB*1e9)))
	})
	text += row("CPU of Redis, cores", rates, func(r float64) string { return fmt.Sprintf("%.3g", r*redisMicros/1e6) })
	text += row("shards by CPU, each at half a core", rates, func(r float64) string { return grouped(float64(up(r*redisMicros/1e6, 0.5))) })
	return text
}

func partsTable() string {
	month := func(rate float64) float64 { return rate * secondsPerMonth }
	text := ratesHead("the rest")
	text += row("Tebra accounts, all requests of one limited method", rates, func(r float64) string { return grouped(float64(up(r, 1/laneEvery))) })
	text += row("Tebra accounts, a perfect mix of all five lanes", rates, func(r float64) string { return grouped(float64(up(r, allLanesPerSec))) })
	text += row("bridges, each at half of what it can", rates, func(r float64) string { return grouped(float64(up(r, bridgeRate/2))) })
	text += row("Pub/Sub, published, and as much pushed", rates, func(r float64) string { return perSecond(r * messageBytes) })
	text += row("Pub/Sub, US dollars a month", rates, func(r float64) string { return dollars(month(r) * 2 * messageBytes / tibiBytes * pubsubPerTiB) })
	text += row("Cloud Run, for the requests, US dollars a month", rates, func(r float64) string { return dollars(month(r) / 1e6 * runPerMillion) })
	return text
}

func instancesTable() string {
	text := "| API answers in | | 10/s | 1,000/s | 100,000/s |\n|---|---|---|---|---|\n"
	for _, l := range latencies {
		name := fmt.Sprintf("%.0f ms", l*1000)
		if l >= 1 {
			name = fmt.Sprintf("%.0f s", l)
		}
		line := func(what string, cell func(rate float64) string) { text += row(name+" | "+what, rates, cell) }
		line("calls at a time", func(r float64) string { return grouped(float64(up(r*l, 1))) })
		line("`MAX_IN_FLIGHT`, at least", func(r float64) string { return grouped(float64(up(r*(l+pubsubLatency), 1))) })
		line("instances of 20 at a time", func(r float64) string { return grouped(float64(up(r*l, instanceConcurr))) })
		line("instances of 250 at a time", func(r float64) string { return grouped(float64(up(r*l, instanceConcurr2))) })
		line("US dollars a month for those of 250", func(r float64) string {
			return dollars(float64(up(r*l, instanceConcurr2)) * secondsPerMonth * (runVCPUSecond + instanceGiB*runGiBSecond))
		})
		line("subscriptions, for Pub/Sub's push window", func(r float64) string {
			if l+pubsubLatency/10 < 1 {
				return "1"
			}
			return grouped(float64(up(r*l, pushWindow)))
		})
	}
	return text
}

// TestTheDocumentSaysWhatIsComputed holds each table of CAPACITY.md, between its marks,
// against the arithmetic.
func TestTheDocumentSaysWhatIsComputed(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for name, table := range tables() {
		begin, end := "<!-- table: "+name+" -->\n", "<!-- end -->"
		before, rest, found := strings.Cut(text, begin)
		got, after, closed := strings.Cut(rest, end)
		if !found || !closed {
			t.Fatalf("%s has no table %q", document, name)
		}
		if got != table && !*update {
			t.Errorf("the table %q of %s is\n%s\nwant\n%s\ngo test ./bridge/internal/capacity -run Document -update", name, document, got, table)
		}
		text = before + begin + table + end + after
	}
	if *update {
		if err := os.WriteFile(document, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
