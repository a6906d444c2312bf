package publish

import (
	"time"

	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// ClientOptions returns the options of Google's Pub/Sub clients: for Google
// itself, or what an emulator at emulatorHost (host:port, as in
// PUBSUB_EMULATOR_HOST) needs.
func ClientOptions(emulatorHost string) []option.ClientOption {
	options := []option.ClientOption{option.WithGRPCDialOption(grpc.WithConnectParams(reconnect))}
	if emulatorHost == "" {
		return options
	}
	return append(options,
		option.WithEndpoint(emulatorHost),
		option.WithoutAuthentication(),
		option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	)
}

// reconnect has a lost connection tried again at least every few seconds. gRPC's
// own rule goes up to two minutes, in which a Pub/Sub that is back would get
// nothing.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}
