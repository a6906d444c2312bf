package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// DiscoveryVariable is the environment variable that overrides where a local run
// says that it is there.
const DiscoveryVariable = "TEBRA_LOCAL_FILE"

const (
	dialTimeout = time.Second // a local run is on this machine, or on a Redis near it
	maxFile     = 64 << 10    // bytes; far more than an [Info] takes
)

// ErrNotRunning says that there is no local run to talk to. Errors that wrap it
// say how that shows.
var ErrNotRunning = errors.New("no local pipeline is running")

// Info is what a client needs to know of a local run.
type Info struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`

	RedisURL    string `json:"redisURL"`
	RedisCACert string `json:"redisCACert,omitempty"` // PEM text or a file's path
	Prefix      string `json:"prefix"`

	Project             string `json:"project"`
	PubSubEmulator      string `json:"pubsubEmulator"` // host:port, as PUBSUB_EMULATOR_HOST
	RequestsTopic       string `json:"requestsTopic"`
	DeadLettersTopic    string `json:"deadLettersTopic"`
	InspectSubscription string `json:"inspectSubscription"`

	PHPAPI       string `json:"phpAPI"`
	PHPAPIKey    string `json:"phpAPIKey,omitempty"`
	FunctionsURL string `json:"functionsURL"`
}

// same reports whether both are of one run. PIDs come again, so the start
// counts as well.
func (i Info) same(other Info) bool {
	return i.PID == other.PID && i.Started.Equal(other.Started)
}

// DiscoveryPath returns where a local run of this user says that it is there:
// what [DiscoveryVariable] holds, else a file in the user's cache directory, or
// in the temporary directory for users without one. lookup is as os.LookupEnv.
func DiscoveryPath(lookup func(string) (string, bool)) string {
	if path, ok := lookup(DiscoveryVariable); ok && path != "" {
		return path
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = filepath.Join(os.TempDir(), "user-"+strconv.Itoa(os.Getuid()))
	}
	return filepath.Join(dir, "tebra", "local.json")
}

// WriteDiscovery puts info at path, readable by its owner only since a Redis URL
// may hold a password, in place of what another run put there: the last one wins.
// Readers see the old file or the new one, nothing between.
func WriteDiscovery(path string, info Info) error {
	if err := writeFile(path, info); err != nil {
		return fmt.Errorf("noting the local pipeline for other commands: %w; set %s to a file that can be written", err, DiscoveryVariable)
	}
	return nil
}

// restore puts info at path again, unless a run has noted itself there meanwhile.
func restore(path string, info Info) error {
	if _, err := readFile(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeFile(path, info)
}

func writeFile(path string, info Info) error {
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".local-*.json") // has mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Discover returns the local run that path speaks of, once it is sure that it is
// alive: its process is there and its Redis accepts connections. If there is
// none the error is [ErrNotRunning]; any other error says that the file can't be
// used. It takes at most a second or so.
func Discover(ctx context.Context, path string) (Info, error) {
	info, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, ErrNotRunning
	}
	if err != nil {
		return Info{}, fmt.Errorf("reading what the local pipeline noted: %w; remove %s and start 'tebra local' again", err, path)
	}
	if !alive(info.PID) {
		return Info{}, fmt.Errorf("%w: process %d, which noted itself in %s, has ended", ErrNotRunning, info.PID, path)
	}
	if err := dial(ctx, info.RedisURL); err != nil {
		return Info{}, fmt.Errorf("%w: the Redis of process %d doesn't answer: %w", ErrNotRunning, info.PID, err)
	}
	return info, nil
}

func readFile(path string) (Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	if err := checkPrivate(f); err != nil {
		return Info{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return Info{}, err
	}
	return parseInfo(text)
}

// checkPrivate returns an error if others than the owner may use f. Somebody
// else's file would send requests to somebody else's Redis.
func checkPrivate(f *os.File) error {
	stat, err := f.Stat()
	if err != nil {
		return err
	}
	if runtime.GOOS != "windows" && stat.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %v, want 0600", f.Name(), stat.Mode().Perm())
	}
	return nil
}

func parseInfo(text []byte) (Info, error) {
	var info Info
	if err := json.Unmarshal(text, &info); err != nil {
		return Info{}, fmt.Errorf("it is not what a local pipeline writes: %w", err)
	}
	if info.PID <= 0 || info.RedisURL == "" || info.Prefix == "" {
		return Info{}, errors.New("it is not what a local pipeline writes: no pid, redisURL or prefix")
	}
	return info, nil
}

// alive reports whether a process of that ID is there, whoever owns it.
func alive(pid int) bool {
	process, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer func() { _ = process.Release() }() // nothing was acquired that could be lost
	if runtime.GOOS == "windows" {
		return true // there, FindProcess opened it
	}
	err = process.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, fs.ErrPermission)
}

// dial returns nil if something listens where url points. Errors don't hold the
// URL, since that may hold a password.
func dial(ctx context.Context, url string) error {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return errors.New("its address is not a Redis URL")
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, opts.Network, opts.Addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Remove takes away the file at path if it still speaks of the run of info, not
// of one that was started later. It is no error if it is gone already. A run that
// begins between the look and the removal is no longer found by itself; its
// address, given with --redis, still is.
func Remove(path string, info Info) error {
	there, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !there.same(info)) {
		return nil
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("removing the note about the local pipeline: %w", err)
	}
	return nil
}
