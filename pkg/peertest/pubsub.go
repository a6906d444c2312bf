package peertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	emulatorStartTimeout = 90 * time.Second
	pubsubCallTimeout    = 10 * time.Second
)

// PubSub is the Pub/Sub emulator that the tests of a test binary share. Its
// methods are safe for concurrent use.
//
// The emulator has two push threads in all, so two slow push endpoints hold up
// the pushes of every test (FACTS, "Pub/Sub").
type PubSub struct {
	addr    string
	process *process // nil for the stand-in
}

var sharedPubSub shared[*PubSub]

// Emulator returns Google's Pub/Sub emulator. Without it, or without Java, it
// is pstest, Google's in-memory Pub/Sub, which never pushes. The package's
// TestMain must call [Main].
func Emulator(t testing.TB) *PubSub {
	t.Helper()
	path, err := findEmulator()
	if err != nil {
		fallBack(t, err, "pstest, which never pushes")
		return sharedPubSub.get(t, startPstest)
	}
	return realEmulator(t, path)
}

// RealEmulator is [Emulator] for tests that need pushes, or anything else that
// pstest has not. Without the emulator it skips the test.
func RealEmulator(t testing.TB) *PubSub {
	t.Helper()
	path, err := findEmulator()
	if err != nil {
		requireReal(t, err)
	}
	return realEmulator(t, path)
}

func realEmulator(t testing.TB, path string) *PubSub {
	t.Helper()
	p := sharedPubSub.get(t, func() (*PubSub, func() error, error) { return startEmulator(path) })
	logOnFailure(t, p.process)
	return p
}

// findEmulator returns the emulator's start script, or what is missing.
func findEmulator() (string, error) {
	if os.Getenv("JAVA_HOME") == "" {
		if _, err := exec.LookPath("java"); err != nil {
			return "", fmt.Errorf("no java, which the Pub/Sub emulator runs on (%w)", err)
		}
	}
	if path, err := exec.LookPath("cloud-pubsub-emulator"); err == nil {
		return path, nil
	}
	for _, root := range sdkRoots() {
		path := filepath.Join(root, "platform", "pubsub-emulator", "bin", "cloud-pubsub-emulator")
		if _, err := exec.LookPath(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Pub/Sub emulator in PATH or in a Google Cloud SDK " +
		"(gcloud components install pubsub-emulator, or name the SDK in CLOUD_SDK_ROOT)")
}

// sdkRoots returns the directories that may hold a Google Cloud SDK, the one
// that the user named first.
func sdkRoots() []string {
	var roots []string
	if root := os.Getenv("CLOUD_SDK_ROOT"); root != "" {
		roots = append(roots, root)
	}
	if root, err := gcloudRoot(); err == nil {
		roots = append(roots, root)
	}
	return append(roots, "/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk")
}

// gcloudRoot returns the SDK that the gcloud in PATH, often a link, belongs to.
func gcloudRoot() (string, error) {
	path, err := exec.LookPath("gcloud")
	if err != nil {
		return "", err
	}
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Dir(filepath.Dir(path)), nil
}

func startEmulator(path string) (*PubSub, func() error, error) {
	process, ports, err := serveShared(emulatorStartTimeout, 1, func(dir string, ports []int) (command, error) {
		return emulatorCommand(path, dir, ports[0]), nil
	})
	if err != nil {
		return nil, nil, err
	}
	return &PubSub{addr: loopback(ports[0]), process: process}, process.discard, nil
}

func emulatorCommand(path, dir string, port int) command {
	return command{
		name: "cloud-pubsub-emulator",
		path: path,
		args: []string{"--host=127.0.0.1", fmt.Sprintf("--port=%d", port)},
		// Small, as several test binaries run at a time.
		env:         []string{"JAVA_TOOL_OPTIONS=-Xmx512m -XX:+UseSerialGC"},
		dir:         dir,
		deathSignal: syscall.SIGKILL,
		ready:       fmt.Sprintf("listening on %d", port),
		probe:       func(ctx context.Context) error { return listTopics(ctx, loopback(port)) },
	}
}

// listTopics returns nil when a Pub/Sub at addr answers over gRPC.
func listTopics(ctx context.Context, addr string) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, pubsubCallTimeout)
	defer cancel()
	request := &pubsubpb.ListTopicsRequest{Project: "projects/" + newProjectID()}
	_, err = pubsubpb.NewPublisherClient(conn).ListTopics(ctx, request)
	return err
}

func startPstest() (*PubSub, func() error, error) {
	server := pstest.NewServerWithAddress("127.0.0.1:0")
	return &PubSub{addr: server.Addr}, server.Close, nil
}

// Addr returns host:port, as PUBSUB_EMULATOR_HOST takes it.
func (p *PubSub) Addr() string { return p.addr }

// Real reports whether this is the emulator, not the stand-in.
func (p *PubSub) Real() bool { return p.process != nil }

// Options returns what connects a Google client to this Pub/Sub and to no
// other, whatever the environment says.
func (p *PubSub) Options() []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(p.addr),
		option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

// Project returns the ID of a new project, t's own. At the end of t its
// subscriptions are deleted, so that no push goes on to a port that may be
// another test's by then.
func (p *PubSub) Project(t testing.TB) string {
	t.Helper()
	project := newProjectID()
	t.Cleanup(func() {
		if err := p.deleteSubscriptions(project); err != nil {
			t.Errorf("delete the subscriptions of %s: %v", project, err)
		}
	})
	return project
}

func (p *PubSub) deleteSubscriptions(project string) error {
	conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), pubsubCallTimeout)
	defer cancel()
	client := pubsubpb.NewSubscriberClient(conn)
	list, err := client.ListSubscriptions(ctx, &pubsubpb.ListSubscriptionsRequest{
		Project:  "projects/" + project,
		PageSize: 1000,
	})
	if err != nil {
		return err
	}
	for _, subscription := range list.GetSubscriptions() {
		request := &pubsubpb.DeleteSubscriptionRequest{Subscription: subscription.GetName()}
		if _, err := client.DeleteSubscription(ctx, request); err != nil {
			return err
		}
	}
	return nil
}
