package publish

import (
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// ClientOptions returns the options of Google's Pub/Sub clients: none for Google
// itself, or what an emulator at emulatorHost (host:port, as in
// PUBSUB_EMULATOR_HOST) needs.
func ClientOptions(emulatorHost string) []option.ClientOption {
	if emulatorHost == "" {
		return nil
	}
	return []option.ClientOption{
		option.WithEndpoint(emulatorHost),
		option.WithoutAuthentication(),
		option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}
