package capacity

import (
	"fmt"
	"math"
	"time"
)

// footprint is how many bytes of Redis a request leaves in each kind of key.
type footprint struct{ requests, responses, status, ledger float64 }

// streams is what lives for RETENTION.
func (f footprint) streams() float64 { return f.requests + f.responses + f.status }

// profile is a kind of request, and what it was measured to leave.
type profile struct {
	name, action, params string
	answer               int // bytes of data
	bytes                footprint
}

// profiles are measured with Redis 7.0.15 (TestMemoryOfARequestIsWhatTheTablesSay).
var profiles = []profile{
	{name: "a day's schedule", action: "health", params: `{"date":"2026-11-23"}`, answer: 4000,
		bytes: footprint{requests: 181, responses: 5159, status: 560, ledger: 490}},
	{name: "a new appointment", action: "createAppointment", answer: 200,
		params: `{"appointmentData":{"patientId":"1234567","providerId":"42","practiceId":"7","start":"2026-11-23T09:00:00Z",` +
			`"end":"2026-11-23T09:30:00Z","reason":"follow-up","resourceId":"3","status":"Scheduled","notes":""}}`,
		bytes: footprint{requests: 415, responses: 463, status: 610, ledger: 480}},
}

// Measured, with everything else that this machine had to do beside it.
const (
	redisMicros = 200.0    // CPU of Redis a request, all the way; see CAPACITY.md
	bridgeRate  = 30_000.0 // requests a second that one bridge drains (BenchmarkDrainAgainstFloor)
)

// Published; CAPACITY.md has the sources.
const (
	memorystoreGB    = 300.0 // most of one Memorystore instance
	clusterNodeGB    = 88.0  // writable, of the largest node of a Memorystore cluster
	pushWindow       = 3000.0
	pubsubPerTiB     = 40.0
	runPerMillion    = 0.40
	runVCPUSecond    = 0.000024
	runGiBSecond     = 0.0000025
	pubsubLatency    = 0.1 // s
	laneEvery        = 1.25
	allLanesPerSec   = 2/1.25 + 3/0.75
	tibiBytes        = 1 << 40
	secondsPerMonth  = 30 * 86400
	instanceGiB      = 0.5
	messageBytes     = 1200.0 // with its attributes; assumed, as in README
	instanceConcurr  = 20
	instanceConcurr2 = 250
)

// ages are RETENTION and LEDGER_TTL.
type ages struct{ retention, ledger time.Duration }

var (
	defaultAges  = ages{24 * time.Hour, 48 * time.Hour}
	shortestAges = ages{2 * time.Hour, 25 * time.Hour} // with the other defaults as they are
)

// redisBytes is what requests at a rate keep in Redis.
func redisBytes(p profile, rate float64, a ages) float64 {
	return rate * (p.bytes.streams()*a.retention.Seconds() + p.bytes.ledger*a.ledger.Seconds())
}

// gigabytes writes bytes as people read them.
func gigabytes(bytes float64) string {
	if bytes >= 1e12 {
		return fmt.Sprintf("%.1f TB", bytes/1e12)
	}
	if bytes >= 1e10 {
		return fmt.Sprintf("%.0f GB", bytes/1e9)
	}
	return fmt.Sprintf("%.1f GB", bytes/1e9)
}

// up is how many of something of a size are needed.
func up(need, size float64) int { return int(math.Ceil(need/size - 1e-9)) }

// perSecond writes a rate of bytes.
func perSecond(bytes float64) string {
	if bytes >= 1e6 {
		return fmt.Sprintf("%.1f MB/s", bytes/1e6)
	}
	return fmt.Sprintf("%.0f KB/s", bytes/1e3)
}

// grouped writes a whole number with commas.
func grouped(n float64) string {
	text := fmt.Sprintf("%.0f", n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func dollars(n float64) string {
	if n < 100 {
		return fmt.Sprintf("%.2f", n)
	}
	return grouped(n)
}
