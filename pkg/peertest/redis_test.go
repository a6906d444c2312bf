package peertest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestRedisAnswersAndExpires(t *testing.T) {
	t.Parallel()
	server := Redis(t)
	options, err := redis.ParseURL(server.URL())
	if err != nil || options.Addr != server.Addr() {
		t.Fatalf("ParseURL(%q) = %+v, %v, want address %s", server.URL(), options, err, server.Addr())
	}
	client := server.Client()
	if err := client.Set(t.Context(), "key", "value", 50*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, testTimeout, "the key's end", func() bool {
		return client.Exists(t.Context(), "key").Val() == 0
	})
}

func TestRedisServersAreApart(t *testing.T) {
	t.Parallel()
	one, two := Redis(t), Redis(t)
	if one.Addr() == two.Addr() {
		t.Fatalf("Addr() = %s twice, want two servers", one.Addr())
	}
	if err := one.Client().Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got := two.Client().Exists(t.Context(), "key").Val(); got != 0 {
		t.Errorf("the other server holds %d such keys, want 0", got)
	}
}

func TestRedisStartsAgainAtItsAddress(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		opts []RedisOption
		end  func(*RedisServer)
		want int64
	}{
		"stopped, in memory": {nil, (*RedisServer).Stop, 0},
		"killed, in memory":  {nil, (*RedisServer).Kill, 0},
		"killed, on disk":    {[]RedisOption{WithArgs("--appendonly", "yes", "--appendfsync", "always")}, (*RedisServer).Kill, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := RealRedis(t, test.opts...)
			client, addr := server.Client(), server.Addr()
			if err := client.Set(t.Context(), "key", "value", 0).Err(); err != nil {
				t.Fatal(err)
			}
			test.end(server)
			if err := dial(t.Context(), addr); err == nil {
				t.Error("an ended server accepts connections, want it not to")
			}
			server.Start()
			if server.Addr() != addr {
				t.Errorf("Addr() = %s after Start, want %s", server.Addr(), addr)
			}
			got, err := client.Exists(t.Context(), "key").Result()
			if err != nil || got != test.want {
				t.Errorf("Exists() after Start = %d, %v, want %d", got, err, test.want)
			}
		})
	}
}

func TestAPausedRedisAnswersOnlyAfterResume(t *testing.T) {
	t.Parallel()
	server := RealRedis(t)
	client := server.Client()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := client.Ping(ctx).Err(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ping() of a paused server = %v, want %v", err, context.DeadlineExceeded)
	}
	server.Resume()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Errorf("Ping() after Resume = %v, want nil", err)
	}
}

func TestMisuseOfAnEndedOrRunningRedisFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		use  func(*RedisServer)
		want string
	}{
		"start twice":      {func(s *RedisServer) { s.Start() }, "runs already"},
		"kill twice":       {func(s *RedisServer) { s.Kill(); s.Kill() }, "not running"},
		"pause when ended": {func(s *RedisServer) { s.Kill(); s.Pause() }, "not running"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := RealRedis(t)
			got := verdictOf(t, func(t testing.TB) {
				server.t = t
				test.use(server)
			})
			if !strings.Contains(got.failed, test.want) {
				t.Errorf("got %+v, want a failure with %q", got, test.want)
			}
		})
	}
}

func TestAReplicaFollowsItsMaster(t *testing.T) {
	t.Parallel()
	master := RealRedis(t)
	replica := RealRedis(t, WithReplicaOf(master))
	if err := master.Client().Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	client := replica.Client()
	Eventually(t, testTimeout, "the key on the replica", func() bool {
		return client.Get(t.Context(), "key").Val() == "value"
	})
}

func TestRedisWithACLAsksForALogin(t *testing.T) {
	t.Parallel()
	server := RealRedis(t, WithACL("user default off", "user app on >secret ~tebra:* +get +ping"))
	if err := server.Client().Ping(t.Context()).Err(); !redis.HasErrorPrefix(err, "NOAUTH") {
		t.Errorf("Ping() without login = %v, want NOAUTH", err)
	}
	app := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "app", Password: "secret"})
	t.Cleanup(func() { app.Close() })
	if err := app.Get(t.Context(), "tebra:key").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("Get() of a permitted key = %v, want %v", err, redis.Nil)
	}
	if err := app.Get(t.Context(), "other").Err(); !redis.HasErrorPrefix(err, "NOPERM") {
		t.Errorf("Get() of another key = %v, want NOPERM", err)
	}
}

func TestARedisThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	RealRedis(t)
	got := verdictOf(t, func(t testing.TB) { RealRedis(t, WithArgs("--no-such-setting", "1")) })
	if !strings.Contains(got.failed, "no-such-setting") {
		t.Errorf("got %+v, want a failure that quotes the log", got)
	}
}
