package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
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
