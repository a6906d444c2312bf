// Package config reads a program's configuration from its environment: one
// struct a program, every variable with its default (DESIGN section 13), and all
// errors at once, each naming its variable.
package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Redis is what every program needs to find its streams.
type Redis struct {
	URL    string `env:"REDIS_URL,required,notEmpty"`
	CACert string `env:"REDIS_CA_CERT"`
	Prefix string `env:"STREAM_PREFIX" envDefault:"tebra"`
}

// PubSub is what every program needs to find its topics.
type PubSub struct {
	Project          string `env:"GOOGLE_CLOUD_PROJECT,required,notEmpty"`
	RequestsTopic    string `env:"REQUESTS_TOPIC" envDefault:"tebra-requests"`
	DeadLettersTopic string `env:"DEAD_LETTERS_TOPIC" envDefault:"tebra-dead-letters"`
	EmulatorHost     string `env:"PUBSUB_EMULATOR_HOST"`
}

// Requests returns the full name of the topic of requests.
func (p PubSub) Requests() string { return p.topic(p.RequestsTopic) }

// DeadLetters returns the full name of the topic of dead letters.
func (p PubSub) DeadLetters() string { return p.topic(p.DeadLettersTopic) }

func (p PubSub) topic(name string) string { return "projects/" + p.Project + "/topics/" + name }

// Error holds everything that is wrong with a configuration.
type Error struct{ Problems []string }

func (e *Error) Error() string {
	return "the configuration is not usable:\n  - " + strings.Join(e.Problems, "\n  - ")
}

// Load reads a T, a struct with env tags, from environ, which has the form of
// os.Environ. Then, if *T has a method Validate, what that finds counts as well,
// but for what it says of variables that could not even be read. The error is an
// [*Error]: a program prints it and exits with status 2.
func Load[T any](environ []string) (T, error) {
	var c T
	var problems []string
	err := env.ParseWithOptions(&c, env.Options{Environment: env.ToMap(environ)})
	if err != nil {
		problems = explain(err, keys(reflect.TypeFor[T]()))
	}
	if v, ok := any(&c).(interface{ Validate() []string }); ok {
		problems = append(problems, aboutOthers(v.Validate(), problems)...)
	}
	if len(problems) == 0 {
		return c, nil
	}
	slices.Sort(problems)
	return c, &Error{Problems: problems}
}

// aboutOthers returns the lines that are about none of the variables which problems
// begin with.
func aboutOthers(lines, problems []string) []string {
	return slices.DeleteFunc(lines, func(line string) bool {
		return slices.ContainsFunc(problems, func(p string) bool {
			name, _, _ := strings.Cut(p, " ")
			return strings.Contains(line, name)
		})
	})
}

// Variables returns the names of all variables that a T reads, sorted.
func Variables[T any]() []string {
	var names []string
	for _, v := range keys(reflect.TypeFor[T]()) {
		names = append(names, v)
	}
	slices.Sort(names)
	return names
}

// keys maps the names of a struct's fields to those of their variables.
func keys(t reflect.Type) map[string]string {
	m := map[string]string{}
	for i := range t.NumField() {
		f := t.Field(i)
		if key, _, _ := strings.Cut(f.Tag.Get("env"), ","); key != "" {
			m[f.Name] = key
		} else if f.Type.Kind() == reflect.Struct {
			for name, key := range keys(f.Type) {
				m[name] = key
			}
		}
	}
	return m
}

// explain turns the library's errors into lines that name variables. Values are
// left out: some of them are secrets.
func explain(err error, keys map[string]string) []string {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return []string{err.Error()}
	}
	var lines []string
	for _, e := range all.Errors {
		lines = append(lines, explainOne(e, keys))
	}
	return lines
}

func explainOne(err error, keys map[string]string) string {
	var parse env.ParseError
	var unset env.VarIsNotSetError
	var empty env.EmptyVarError
	switch {
	case errors.As(err, &unset):
		return unset.Key + " is required and not set"
	case errors.As(err, &empty):
		return empty.Key + " is required and empty"
	case errors.As(err, &parse):
		return fmt.Sprintf("%s is not %s", keys[parse.Name], form(parse.Type))
	default:
		return err.Error()
	}
}

// form says in words what a variable of type t looks like.
func form(t reflect.Type) string {
	if t.String() == "time.Duration" {
		return "a duration such as 90s or 2h"
	}
	if t.Kind() == reflect.Bool {
		return "true or false"
	}
	return "a whole number"
}
