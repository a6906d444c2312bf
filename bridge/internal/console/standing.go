package console

import (
	"time"

	"tebraproxy/bridge/internal/inspect"
)

// standing is how everything stands, as the page takes it.
type standing struct {
	Trouble  string            `json:"trouble,omitempty"` // why nothing else is there
	At       time.Time         `json:"at"`
	Concerns []inspect.Concern `json:"concerns"`
	Streams  []streamState     `json:"streams"`
	Lag      int64             `json:"lag"` // unread; -1 where Redis can't tell
	InHand   int64             `json:"inHand"`
	Parked   int64             `json:"parked"`
	InFlight int64             `json:"inFlight"`
	Lanes    []laneState       `json:"lanes"`
	Breaker  breakerState      `json:"breaker"`
	Bridges  []bridgeState     `json:"bridges"`
}

type streamState struct {
	Name   string     `json:"name"`
	Length int64      `json:"length"`
	Oldest *time.Time `json:"oldest"` // nil where it is empty
}

type laneState struct {
	Name     string     `json:"name"`
	Open     int64      `json:"open"`
	Retrying int64      `json:"retrying"`
	Parked   int64      `json:"parked"`
	Interval float64    `json:"interval"` // ms between two calls; 0 without a rate
	Oldest   *time.Time `json:"oldest"`
}

type breakerState struct {
	State     string     `json:"state"`
	Since     *time.Time `json:"since"`
	NextProbe *time.Time `json:"nextProbe"`
	Failures  int        `json:"failures"`
}

type bridgeState struct {
	Consumer  string    `json:"consumer"`
	Version   string    `json:"version"`
	Started   time.Time `json:"started"`
	At        time.Time `json:"at"`
	Published int64     `json:"published"`
	Rejected  int64     `json:"rejected"`
	Gate      string    `json:"gate"`
	Memory    uint64    `json:"memory"`
}

func asStanding(s inspect.Status) standing {
	v := standing{
		At: s.At, Concerns: append([]inspect.Concern{}, s.Concerns()...),
		Streams: []streamState{}, Lanes: []laneState{}, Bridges: []bridgeState{},
		Lag: s.Waiting.Lag, InHand: s.Waiting.InHand, Parked: s.Waiting.Parked,
		Breaker: breakerState{State: s.Breaker.State.String(), Since: orNil(s.Breaker.Since), NextProbe: orNil(s.Breaker.NextProbe), Failures: s.Breaker.Failures},
	}
	v.InFlight, _ = s.InFlight()
	for _, stream := range s.Streams {
		v.Streams = append(v.Streams, streamState{stream.Name, stream.Length, orNil(stream.Oldest)})
	}
	for _, lane := range s.Lanes {
		v.Lanes = append(v.Lanes, laneState{
			Name: lane.Name, Open: lane.Open, Retrying: lane.Retrying, Parked: lane.Parked,
			Interval: float64(lane.Interval) / float64(time.Millisecond), Oldest: orNil(lane.Oldest),
		})
	}
	for _, b := range s.Bridges {
		v.Bridges = append(v.Bridges, bridgeState{b.Consumer, b.Version, b.Started, b.At, b.Published, b.Rejected, b.Gate, b.Memory})
	}
	return v
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
