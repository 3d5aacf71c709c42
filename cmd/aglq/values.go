package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
)

// secondsFlag is an option of a time: seconds, or a number with a unit.
type secondsFlag = cli.FlagBase[time.Duration, cli.NoConfig, secondsValue]

type secondsValue time.Duration

// Create implements cli.ValueCreator.
func (secondsValue) Create(v time.Duration, p *time.Duration, _ cli.NoConfig) cli.Value {
	*p = v
	return (*secondsValue)(p)
}

// ToString implements cli.ValueCreator.
func (secondsValue) ToString(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'g', -1, 64)
}

// Set implements cli.Value.
func (v *secondsValue) Set(text string) error {
	d, err := parseSeconds(text)
	*v = secondsValue(d)
	return err
}

// Get implements cli.Value.
func (v *secondsValue) Get() any { return time.Duration(*v) }

// String implements cli.Value.
func (v *secondsValue) String() string { return v.ToString(time.Duration(*v)) }

func parseSeconds(text string) (time.Duration, error) {
	wrong := fmt.Errorf("it must be seconds, 0 or more, as 30 or 0.5, or a time with its unit, as 500ms or 2m")
	text = strings.TrimSpace(text)
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		if !(s >= 0) || s > math.MaxInt64/1e9 {
			return 0, wrong
		}
		return time.Duration(s * 1e9), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, wrong
	}
	return d, nil
}

// momentFlag is an option of a time, in any of the forms of parseMoment; none is what
// its absence means.
func momentFlag(name, none, usage string) cli.Flag {
	return &cli.StringFlag{
		Name: name, DefaultText: none, Usage: usage + ", as 2026-01-31T12:00:00Z, 2026-01-31, Unix seconds, or how long ago, as 2h",
		Validator: func(text string) error {
			_, err := parseMoment(text, time.Now())
			return err
		},
	}
}

// moment is the time that an option names; zero where it is not given.
func moment(cmd *cli.Command, name string, now time.Time) time.Time {
	t, _ := parseMoment(cmd.String(name), now) // checked by the option
	return t
}

// since is the time of --since in Unix seconds, 0 where it is not given.
func since(cmd *cli.Command) float64 {
	t := moment(cmd, "since", time.Now())
	if t.IsZero() {
		return 0
	}
	return queue.Seconds(t)
}

// parseMoment reads a time: RFC 3339, a date, which begins at midnight of the local
// time, Unix seconds, or a time with a unit before now. "" is the zero time.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return t, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		if s > 0 && s < math.MaxInt64/1e9 {
			return time.Unix(0, int64(s*1e9)), nil
		}
	} else if d, err := parseSeconds(text); err == nil {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("it must be a time, as 2026-01-31T12:00:00Z, a date, as 2026-01-31, Unix seconds, or how long ago, as 2h")
}

// textsFlag is an option that may be repeated, and whose values may have commas.
type textsFlag = cli.FlagBase[[]string, cli.NoConfig, textsValue]

type textsValue struct{ list *[]string }

// Create implements cli.ValueCreator.
func (textsValue) Create(v []string, p *[]string, _ cli.NoConfig) cli.Value {
	*p = slices.Clone(v)
	return &textsValue{p}
}

// ToString implements cli.ValueCreator.
func (textsValue) ToString(list []string) string { return strings.Join(list, " ") }

// Set implements cli.Value.
func (v *textsValue) Set(text string) error {
	*v.list = append(*v.list, text)
	return nil
}

// Get implements cli.Value.
func (v *textsValue) Get() any { return *v.list }

// String implements cli.Value.
func (v *textsValue) String() string { return v.ToString(*v.list) }

// bytesFlag is an option of a size: bytes, or a number with a unit.
type bytesFlag = cli.FlagBase[int64, cli.NoConfig, bytesValue]

type bytesValue int64

// Create implements cli.ValueCreator.
func (bytesValue) Create(v int64, p *int64, _ cli.NoConfig) cli.Value {
	*p = v
	return (*bytesValue)(p)
}

// ToString implements cli.ValueCreator.
func (bytesValue) ToString(v int64) string { return strconv.FormatInt(v, 10) }

// Set implements cli.Value.
func (v *bytesValue) Set(text string) error {
	n, err := parseBytes(text)
	*v = bytesValue(n)
	return err
}

// Get implements cli.Value.
func (v *bytesValue) Get() any { return int64(*v) }

// String implements cli.Value.
func (v *bytesValue) String() string { return strconv.FormatInt(int64(*v), 10) }

var byteUnits = []struct {
	suffix string
	size   float64
}{
	{"KIB", 1 << 10}, {"MIB", 1 << 20}, {"GIB", 1 << 30}, {"TIB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40},
	{"B", 1},
}

func parseBytes(text string) (int64, error) {
	number, unit := strings.ToUpper(strings.TrimSpace(text)), 1.0
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n >= 0) || n*unit >= math.MaxInt64 {
		return 0, fmt.Errorf("it must be a number of bytes, as 1500000, 512MiB or 2GiB")
	}
	return int64(n * unit), nil
}

// truthFlag is an option of a boolean in the words that the AGL_ variables take.
type truthFlag = cli.FlagBase[truth, cli.NoConfig, truthValue]

type truth string

type truthValue truth

// Create implements cli.ValueCreator.
func (truthValue) Create(v truth, p *truth, _ cli.NoConfig) cli.Value {
	*p = v
	return (*truthValue)(p)
}

// ToString implements cli.ValueCreator.
func (truthValue) ToString(v truth) string { return string(v) }

// Set implements cli.Value.
func (v *truthValue) Set(text string) error {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "1", "true", "yes", "on":
		*v = "true"
	case "0", "false", "no", "off":
		*v = "false"
	default:
		return fmt.Errorf("it must be one of 1, true, yes, on, 0, false, no, off")
	}
	return nil
}

// Get implements cli.Value.
func (v *truthValue) Get() any { return truth(*v) }

// String implements cli.Value.
func (v *truthValue) String() string { return string(*v) }

func isTrue(cmd *cli.Command, name string) bool { return cmd.Value(name).(truth) == "true" }

// oneOf is the validator of an option with a list of words.
func oneOf(words ...string) func(string) error {
	return func(s string) error {
		for _, w := range words {
			if s == w {
				return nil
			}
		}
		return fmt.Errorf("it must be %s", orList(words))
	}
}

func eachOneOf(words ...string) func([]string) error {
	one := oneOf(words...)
	return func(list []string) error {
		for _, s := range list {
			if err := one(s); err != nil {
				return err
			}
		}
		return nil
	}
}

func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// within is the validator of a whole number with bounds.
func within(low, high int) func(int) error {
	return func(n int) error {
		if n < low || n > high {
			if high == math.MaxInt {
				return fmt.Errorf("it must be %d or more", low)
			}
			return fmt.Errorf("it must be %d to %d", low, high)
		}
		return nil
	}
}

// atLeast is the validator of a time with a lower bound.
func atLeast(least time.Duration) func(time.Duration) error {
	return func(d time.Duration) error {
		if d < least {
			return fmt.Errorf("it must be %g or more", least.Seconds())
		}
		return nil
	}
}
