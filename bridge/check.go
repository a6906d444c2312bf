package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tebraproxy/pkg/config"
)

// What a bridge looks at before it starts. What somebody can mend while it waits
// (Redis is not there, or refuses our password; Pub/Sub is not there) is said
// and waited out. What can only be a mistake in the configuration ends it with a
// [*config.Error], before it has touched anything.

// TopicAdmin is the part of the Pub/Sub client that tells whether a topic is
// there.
type TopicAdmin interface {
	GetTopic(context.Context, *pubsubpb.GetTopicRequest, ...gax.CallOption) (*pubsubpb.Topic, error)
	TestIamPermissions(context.Context, *iampb.TestIamPermissionsRequest, ...gax.CallOption) (*iampb.TestIamPermissionsResponse, error)
}

// checkTimeout bounds the questions about one topic: a Pub/Sub that is slow to
// answer them holds nobody up for longer.
const checkTimeout = 5 * time.Second

// checkRedis returns an error when Redis can't be asked, and a [*config.Error]
// when it is a Redis Cluster whose slots our keys would be scattered over. A
// Redis that evicts keys is worth a warning.
func (b *Bridge) checkRedis(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	cluster, err := b.redisInfo(ctx, "cluster", "cluster_enabled")
	if err != nil {
		return err
	}
	if cluster == "1" && !b.deps.Keys.OneSlot() {
		prefix := b.deps.Keys.Prefix()
		return &config.Error{Problems: []string{fmt.Sprintf(
			"STREAM_PREFIX is %q, but Redis is a cluster, where all keys must share a slot: put the prefix into braces, {%s}, for everybody who uses these streams", prefix, prefix)}}
	}
	// CONFIG is blocked on Memorystore; INFO is not (FACTS, Redis).
	policy, err := b.redisInfo(ctx, "memory", "maxmemory_policy")
	if err != nil {
		return err
	}
	if policy != "" && policy != "noeviction" {
		b.log.Warn("Redis may evict keys when its memory is full: records of which calls were made would be lost, and answers with them; set maxmemory-policy to noeviction",
			"maxmemory_policy", policy)
	}
	return nil
}

// redisInfo returns one value of INFO, "" when this Redis doesn't tell.
func (b *Bridge) redisInfo(ctx context.Context, section, name string) (string, error) {
	text, err := b.deps.Redis.Info(ctx, section).Result()
	if err != nil && (refusesUs(err) || !isReply(err)) {
		return "", fmt.Errorf("asking Redis about itself: %w", err)
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", nil
}

// isReply reports whether err is Redis's answer rather than the lack of one.
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// refusesUs reports whether err is about who we are.
func refusesUs(err error) bool {
	return redis.HasErrorPrefix(err, "WRONGPASS") || redis.HasErrorPrefix(err, "NOAUTH")
}

// redisTrouble says in the log what it means that Redis answered with err.
func redisTrouble(err error) string {
	switch {
	case refusesUs(err):
		return "Redis refuses the user or password in REDIS_URL; trying again"
	case redis.HasErrorPrefix(err, "NOPERM"):
		return "Redis forbids the user in REDIS_URL something that a bridge needs; trying again"
	default:
		return "Redis can't be used; trying again"
	}
}

// checkTopics returns a [*config.Error] when a topic is certainly not there.
func (b *Bridge) checkTopics(ctx context.Context) error {
	if b.deps.Topics == nil {
		return nil
	}
	var problems []string
	for _, t := range []struct{ variable, name string }{
		{"REQUESTS_TOPIC", b.cfg.Requests()}, {"DEAD_LETTERS_TOPIC", b.cfg.DeadLetters()},
	} {
		if b.topicIsMissing(ctx, t.name) {
			problems = append(problems, fmt.Sprintf("%s: there is no topic %s: create it, or correct GOOGLE_CLOUD_PROJECT or %s", t.variable, t.name, t.variable))
		}
	}
	if len(problems) > 0 {
		return &config.Error{Problems: problems}
	}
	return nil
}

// topicIsMissing reports whether there certainly is no such topic.
//
// It asks first whether we may publish to it, because everybody may ask that;
// GetTopic wants pubsub.topics.get, which the publisher role does not have. For a
// topic that does not exist the answer is "nothing" (Pub/Sub's reference,
// projects.topics.testIamPermissions), as for one that isn't ours to publish to;
// GetTopic tells them apart if it can. If it can't, that is said, and publishing
// will show. Emulators know no permissions, but GetTopic.
func (b *Bridge) topicIsMissing(ctx context.Context, topic string) bool {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	const publish = "pubsub.topics.publish"
	granted, err := b.deps.Topics.TestIamPermissions(ctx, &iampb.TestIamPermissionsRequest{Resource: topic, Permissions: []string{publish}})
	switch status.Code(err) {
	case codes.NotFound:
		return true
	case codes.OK, codes.Unimplemented:
	default: // no answer
		return false
	}
	if len(granted.GetPermissions()) > 0 {
		return false
	}
	_, getErr := b.deps.Topics.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: topic}, gax.WithRetry(nil))
	if status.Code(getErr) == codes.NotFound {
		return true
	}
	if err == nil {
		b.log.Error("Pub/Sub lets us publish nothing to a topic: it does not exist, or this identity lacks roles/pubsub.publisher on it", "topic", topic)
	}
	return false
}
