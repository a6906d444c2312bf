// Package deploy keeps what is deployed and what is written in Go in step. What it
// makes is the Redis ACL of an installation (terraform/redis.acl); its tests hold
// terraform/ and the images against the programs: environment variables both ways,
// the Pub/Sub topology, the Redis commands that are sent, the build.
package deploy
