package cem

import (
	"encoding/json"
	"math"
	"math/rand/v2"

	"github.com/aglq/aglq/queue/rawjson"
)

// Marginal is the distribution of one parameter, independent of the others. A
// number has Mean and Std of a normal distribution cut off outside 0 to 1, where
// 0 is the parameter's low bound and 1 its high one on its scale. A categorical
// parameter has the probability of each choice.
type Marginal struct {
	Parameter
	Mean          float64
	Std           float64
	Probabilities []float64
}

// MarshalJSON writes the parameter's members and, after them, mean and std or
// probabilities.
func (m Marginal) MarshalJSON() ([]byte, error) {
	parameter, err := json.Marshal(m.Parameter)
	if err != nil {
		return nil, err
	}
	var more []byte
	if m.Type == Categorical {
		more, err = json.Marshal(struct {
			Probabilities []float64 `json:"probabilities"`
		}{m.Probabilities})
	} else {
		more, err = json.Marshal(struct {
			Mean float64 `json:"mean"`
			Std  float64 `json:"std"`
		}{m.Mean, m.Std})
	}
	if err != nil {
		return nil, err
	}
	parameter[len(parameter)-1] = ','
	return append(parameter, more[1:]...), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (m *Marginal) UnmarshalJSON(text []byte) error {
	var read struct {
		Mean          float64   `json:"mean"`
		Std           float64   `json:"std"`
		Probabilities []float64 `json:"probabilities"`
	}
	if err := json.Unmarshal(text, &m.Parameter); err != nil {
		return err
	}
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	m.Mean, m.Std, m.Probabilities = read.Mean, read.Std, read.Probabilities
	return nil
}

// widest is the std of a search that has just begun: the bounds are hardly less
// likely than the middle.
const widest = 0.5

// wide is the distribution a search begins with.
func wide(space Space) []Marginal {
	marginals := make([]Marginal, len(space.Parameters))
	for i, p := range space.Parameters {
		m := Marginal{Parameter: p, Mean: 0.5, Std: widest}
		if p.Type == Categorical {
			m = Marginal{Parameter: p, Probabilities: make([]float64, len(p.Choices))}
			for j := range m.Probabilities {
				m.Probabilities[j] = 1 / float64(len(p.Choices))
			}
		}
		marginals[i] = m
	}
	return marginals
}

// point is one draw: for each parameter a place between 0 and 1, or the index of
// a choice.
type point []float64

// draw takes a population out of the distribution.
func draw(marginals []Marginal, n int, rng *rand.Rand) []point {
	points := make([]point, n)
	for i := range points {
		points[i] = make(point, len(marginals))
		for j := range marginals {
			points[i][j] = marginals[j].draw(rng)
		}
	}
	return points
}

func (m *Marginal) draw(rng *rand.Rand) float64 {
	if m.Type == Categorical {
		u := rng.Float64()
		for i, p := range m.Probabilities {
			if u -= p; u < 0 {
				return float64(i)
			}
		}
		return float64(len(m.Probabilities) - 1)
	}
	// The mean is within the bounds, so at least one draw in three hits.
	for range 100 {
		if u := m.Mean + m.Std*rng.NormFloat64(); u >= 0 && u <= 1 {
			return u
		}
	}
	return m.Mean
}

// params is the task that stands for a point.
func params(marginals []Marginal, at point) rawjson.Value {
	text := []byte{'{'}
	for i := range marginals {
		m := &marginals[i]
		if i > 0 {
			text = append(text, ',')
		}
		text = rawjson.AppendString(text, m.Name)
		text = append(text, ':')
		if m.Type == Categorical {
			text = append(text, m.Choices[int(at[i])]...)
		} else {
			text = m.appendValue(text, at[i])
		}
	}
	return append(text, '}')
}

// fit moves the distribution towards the elite: by the share rate, the rest is
// kept. A floor keeps it from collapsing onto one point or one choice.
func fit(marginals []Marginal, elite []point, rate, minStd float64) []Marginal {
	next := make([]Marginal, len(marginals))
	n := float64(len(elite))
	for i, m := range marginals {
		if m.Type == Categorical {
			next[i] = m.fitChoices(elite, i, rate)
			continue
		}
		var mean, variance float64
		for _, p := range elite {
			mean += p[i] / n
		}
		for _, p := range elite {
			variance += (p[i] - mean) * (p[i] - mean) / n
		}
		m.Mean += rate * (mean - m.Mean)
		m.Std = max(m.Std+rate*(math.Sqrt(variance)-m.Std), minStd)
		next[i] = m
	}
	return next
}

// leastShare is what all choices together keep of the even distribution.
const leastShare = 0.05

func (m Marginal) fitChoices(elite []point, i int, rate float64) Marginal {
	share := make([]float64, len(m.Probabilities))
	for _, p := range elite {
		share[int(p[i])] += 1 / float64(len(elite))
	}
	even := 1 / float64(len(share))
	for j, old := range m.Probabilities {
		moved := old + rate*(share[j]-old)
		share[j] = leastShare*even + (1-leastShare)*moved
	}
	m.Probabilities = share
	return m
}
