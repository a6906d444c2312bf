# --- required ----------------------------------------------------------------

variable "project_id" {
  description = "ID of the Google Cloud project to deploy to. It needs billing, and nothing else."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id: want the project's ID (6 to 30 small letters, digits and hyphens), not its name or number."
  }
}

variable "region" {
  description = "Region of everything, such as us-central1."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region: want a region such as us-central1, not a zone or a continent."
  }
}

variable "php_api_url" {
  description = "URL of the PHP API that requests are sent to."
  type        = string

  validation {
    condition     = can(regex("^https://[^/@?#]+", var.php_api_url))
    error_message = "php_api_url: want an https:// URL: patients' data goes there."
  }
}

variable "php_api_key" {
  description = "What the PHP API asks for in X-API-Key. It goes to Secret Manager, and neither into the state nor into a plan: give it at every plan and apply, best as TF_VAR_php_api_key."
  type        = string
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = length(var.php_api_key) > 0 && trimspace(var.php_api_key) == var.php_api_key
    error_message = "php_api_key is empty, or has spaces or line ends around it."
  }
}

# --- Redis -------------------------------------------------------------------

variable "create_redis" {
  description = "Whether to make a Memorystore instance in the VPC. Without it, redis_url names a server that is there."
  type        = bool
  default     = false
}

variable "redis_url" {
  description = "redis:// or rediss:// URL of an existing server, with its password. Treated as php_api_key is."
  type        = string
  sensitive   = true
  ephemeral   = true
  default     = null

  validation {
    condition     = var.create_redis ? var.redis_url == null : can(regex("^rediss?://.+", var.redis_url))
    error_message = "redis_url: want a redis:// or rediss:// URL, or create_redis = true and no URL."
  }
}

variable "redis_ca_cert" {
  description = "PEM text of the certificates that a rediss:// URL's server is trusted by; empty for the well-known ones. Memorystore's are found by themselves."
  type        = string
  default     = ""

  validation {
    condition     = var.redis_ca_cert == "" || can(regex("-----BEGIN CERTIFICATE-----", var.redis_ca_cert))
    error_message = "redis_ca_cert: want PEM text, as file(\"ca.pem\") reads it."
  }

  validation {
    condition     = !(var.create_redis && var.redis_ca_cert != "")
    error_message = "redis_ca_cert is for a server of your own: with create_redis the instance's certificates are used."
  }
}

variable "redis_tier" {
  description = "Memorystore's tier: STANDARD_HA has a replica that takes over, BASIC loses its data when its one node goes."
  type        = string
  default     = "STANDARD_HA"

  validation {
    condition     = contains(["STANDARD_HA", "BASIC"], var.redis_tier)
    error_message = "redis_tier: want STANDARD_HA or BASIC."
  }
}

variable "redis_memory_gb" {
  description = "Memorystore's size in GiB: a day's requests and answers, and LEDGER_TTL's records, must fit."
  type        = number
  default     = 1

  validation {
    condition     = var.redis_memory_gb >= 1 && var.redis_memory_gb <= 300 && floor(var.redis_memory_gb) == var.redis_memory_gb
    error_message = "redis_memory_gb: Memorystore allows 1 to 300."
  }
}

variable "redis_version" {
  description = "Memorystore's Redis version."
  type        = string
  default     = "REDIS_7_2"

  validation {
    condition     = contains(["REDIS_7_0", "REDIS_7_2"], var.redis_version)
    error_message = "redis_version: want REDIS_7_0 or REDIS_7_2; older ones lack what the streams need."
  }
}

variable "stream_prefix" {
  description = "What all Redis keys begin with. {tebra} puts them into one slot of a Redis Cluster."
  type        = string
  default     = "tebra"

  validation {
    condition     = can(regex("^(\\{[A-Za-z0-9._:-]{1,64}\\}|[A-Za-z0-9._-][A-Za-z0-9._:-]{0,63})$", var.stream_prefix))
    error_message = "stream_prefix: want 1 to 64 letters, digits or . _ : -, all of it optionally in braces."
  }
}

# --- what is deployed --------------------------------------------------------

variable "name" {
  description = "What the names of all resources begin with, so that several installations fit into one project."
  type        = string
  default     = "tebra"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,15}[a-z0-9]$", var.name))
    error_message = "name: want 2 to 17 small letters, digits or hyphens, beginning with a letter and not ending with a hyphen: account IDs, which append up to 13, have at most 30."
  }
}

variable "image_tag" {
  description = "Tag of images that CI has built, for an apply that builds nothing. It must be in the registry, so not for the first apply."
  type        = string
  default     = null

  validation {
    condition     = var.image_tag == null || can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", var.image_tag))
    error_message = "image_tag: want a tag of 1 to 128 letters, digits or . _ -."
  }
}

variable "policy_file" {
  description = "Path, from terraform/, of the policy file (pkg/policy/example.yaml explains it). Without one nobody may do anything."
  type        = string
  default     = null

  validation {
    condition     = var.policy_file == null || can(yamldecode(file(var.policy_file)).version)
    error_message = "policy_file can't be read, or is no YAML or JSON with a version: see pkg/policy/example.yaml."
  }

  validation {
    condition     = var.policy_file == null || length(try(file(var.policy_file), "")) <= 65536
    error_message = "policy_file: Secret Manager holds at most 64 KiB."
  }
}

variable "php_api_audience" {
  description = "Audience of the Google ID token that is sent to the PHP API as well; empty for none. The API's service must let the account that the output accounts names invoke it."
  type        = string
  default     = ""
}

variable "secret_versions" {
  description = "Raise a secret's number to write it anew: Terraform can't see by itself that a write-only value has changed."
  type = object({
    php_api_key = optional(number, 1)
    redis_url   = optional(number, 1)
  })
  default = {}

  validation {
    condition     = alltrue([for v in [var.secret_versions.php_api_key, var.secret_versions.redis_url] : v >= 1 && floor(v) == v])
    error_message = "secret_versions: want whole numbers from 1."
  }
}

# --- the bridge --------------------------------------------------------------

variable "bridge_mode" {
  description = "pool keeps a bridge running; job starts one every drain_minutes, for those who want scale to zero and can wait."
  type        = string
  default     = "pool"

  validation {
    condition     = contains(["pool", "job"], var.bridge_mode)
    error_message = "bridge_mode: want pool or job."
  }
}

variable "bridge_instances" {
  description = "How many bridges the pool keeps. One carries thousands of requests a second; a second one takes over within CLAIM_IDLE."
  type        = number
  default     = 1

  validation {
    condition     = var.bridge_instances >= 1 && var.bridge_instances <= 20 && floor(var.bridge_instances) == var.bridge_instances
    error_message = "bridge_instances: want 1 to 20."
  }
}

variable "drain_minutes" {
  description = "With bridge_mode = job: how often it runs. It ends a minute before the next begins."
  type        = number
  default     = 5

  validation {
    condition     = contains([3, 4, 5, 6, 10, 12, 15, 20, 30], var.drain_minutes)
    error_message = "drain_minutes: want 3, 4, 5, 6, 10, 12, 15, 20 or 30, which divide an hour."
  }
}

variable "max_in_flight" {
  description = "Requests published and unanswered, per lane without a rate."
  type        = number
  default     = 1000

  validation {
    condition     = var.max_in_flight >= 1 && var.max_in_flight <= 1000000 && floor(var.max_in_flight) == var.max_in_flight
    error_message = "max_in_flight: want 1 to 1000000."
  }
}

variable "batch_size" {
  description = "Entries that a bridge reads at a time."
  type        = number
  default     = 500

  validation {
    condition     = var.batch_size >= 1 && var.batch_size <= 1000 && floor(var.batch_size) == var.batch_size
    error_message = "batch_size: want 1 to 1000."
  }
}

variable "max_request_bytes" {
  description = "The largest request that is taken."
  type        = number
  default     = 1048576

  validation {
    condition     = var.max_request_bytes >= 1024 && var.max_request_bytes <= 8388608 && floor(var.max_request_bytes) == var.max_request_bytes
    error_message = "max_request_bytes: want 1024 to 8388608."
  }
}

variable "stream_retention_hours" {
  description = "How long entries stay on the streams."
  type        = number
  default     = 24

  validation {
    condition     = var.stream_retention_hours * 60 >= var.answer_deadline_minutes
    error_message = "stream_retention_hours must be at least answer_deadline_minutes: what is swept must still be there."
  }
}

variable "answer_deadline_minutes" {
  description = "After twice that, a request that is still open is answered with no_answer."
  type        = number
  default     = 120

  validation {
    condition     = var.answer_deadline_minutes * 60 > local.retry_window_seconds
    error_message = "answer_deadline_minutes must be longer than all attempts of a request can take, with their backoff: else a request that is still being tried is answered."
  }

  validation {
    condition     = var.answer_deadline_minutes * 60 > var.claim_idle_seconds
    error_message = "answer_deadline_minutes must be longer than claim_idle_seconds."
  }
}

variable "claim_idle_seconds" {
  description = "After which a silent bridge's entries are taken over."
  type        = number
  default     = 150

  validation {
    condition     = var.claim_idle_seconds >= 1 && floor(var.claim_idle_seconds) == var.claim_idle_seconds
    error_message = "claim_idle_seconds: want at least 1."
  }
}

# --- the functions -----------------------------------------------------------

variable "process_concurrency" {
  description = "Requests that an instance of ProcessRequest works on at a time. With process_max_instances it bounds the load on the PHP API."
  type        = number
  default     = 20

  validation {
    condition     = var.process_concurrency >= 1 && var.process_concurrency <= 1000 && floor(var.process_concurrency) == var.process_concurrency
    error_message = "process_concurrency: Cloud Run allows 1 to 1000."
  }
}

variable "process_max_instances" {
  description = "Most instances of ProcessRequest."
  type        = number
  default     = 5

  validation {
    condition     = var.process_max_instances >= 1 && var.process_max_instances <= 100 && floor(var.process_max_instances) == var.process_max_instances
    error_message = "process_max_instances: want 1 to 100."
  }
}

variable "process_min_instances" {
  description = "Instances of ProcessRequest that are kept warm."
  type        = number
  default     = 0

  validation {
    condition     = var.process_min_instances >= 0 && var.process_min_instances <= var.process_max_instances
    error_message = "process_min_instances: want 0 to process_max_instances."
  }
}

variable "record_max_instances" {
  description = "Most instances of RecordDeadLetter."
  type        = number
  default     = 2

  validation {
    condition     = var.record_max_instances >= 1 && var.record_max_instances <= 100 && floor(var.record_max_instances) == var.record_max_instances
    error_message = "record_max_instances: want 1 to 100."
  }
}

variable "ledger_replicas" {
  description = "Redis replicas that must confirm before a change is called. 1 with STANDARD_HA costs a round trip and survives a failover."
  type        = number
  default     = 0

  validation {
    condition     = var.ledger_replicas >= 0 && var.ledger_replicas <= 10 && floor(var.ledger_replicas) == var.ledger_replicas
    error_message = "ledger_replicas: want 0 to 10."
  }

  validation {
    condition     = !var.create_redis || var.ledger_replicas <= (var.redis_tier == "STANDARD_HA" ? 1 : 0)
    error_message = "ledger_replicas: Memorystore's STANDARD_HA has one replica here, BASIC none; no change would ever be called."
  }
}

# --- deadlines: each within the next -----------------------------------------

variable "php_timeout_seconds" {
  description = "How long one call of the PHP API may take."
  type        = number
  default     = 30

  validation {
    condition     = var.php_timeout_seconds > 0
    error_message = "php_timeout_seconds: want more than 0."
  }
}

variable "rate_wait_seconds" {
  description = "How long a request may wait for its turn in a limited lane."
  type        = number
  default     = 45

  validation {
    condition     = var.rate_wait_seconds > 0
    error_message = "rate_wait_seconds: want more than 0."
  }
}

variable "handler_timeout_seconds" {
  description = "How long a function may work on one request."
  type        = number
  default     = 90

  validation {
    condition     = var.handler_timeout_seconds > var.rate_wait_seconds + var.php_timeout_seconds + 5
    error_message = "handler_timeout_seconds must be more than rate_wait_seconds, php_timeout_seconds and 5 s, to look up roles, together."
  }
}

variable "ack_deadline_seconds" {
  description = "How long a push may take: the subscriptions' deadline and Cloud Run's request timeout."
  type        = number
  default     = 120

  validation {
    condition     = var.ack_deadline_seconds >= 10 && var.ack_deadline_seconds <= 600 && floor(var.ack_deadline_seconds) == var.ack_deadline_seconds
    error_message = "ack_deadline_seconds: Pub/Sub allows 10 to 600."
  }

  validation {
    condition     = var.ack_deadline_seconds > var.handler_timeout_seconds
    error_message = "ack_deadline_seconds must be more than handler_timeout_seconds: else Pub/Sub delivers again what is still being worked on."
  }
}

variable "ledger_lease_seconds" {
  description = "How long an attempt is one instance's alone."
  type        = number
  default     = 150

  validation {
    condition     = var.ledger_lease_seconds > var.ack_deadline_seconds && var.ledger_lease_seconds > var.handler_timeout_seconds + 5
    error_message = "ledger_lease_seconds must be more than ack_deadline_seconds, and than handler_timeout_seconds and 5 s together."
  }

  validation {
    condition     = var.ledger_lease_seconds < local.backoff_seconds
    error_message = "ledger_lease_seconds must be less than the backoff of all attempts together: else the last attempt can still find the first one's lease."
  }
}

variable "ledger_ttl_hours" {
  description = "How long a request is remembered, so that it is not made twice."
  type        = number
  default     = 48

  validation {
    condition     = var.ledger_ttl_hours > var.request_retention_hours && var.ledger_ttl_hours > 24 && var.ledger_ttl_hours >= var.stream_retention_hours
    error_message = "ledger_ttl_hours must be more than 24 and than request_retention_hours, and at least stream_retention_hours: a request may come again as long as somebody keeps it."
  }
}

variable "max_attempts" {
  description = "How often a request is delivered before it is a dead letter."
  type        = number
  default     = 10

  validation {
    condition     = var.max_attempts >= 5 && var.max_attempts <= 100 && floor(var.max_attempts) == var.max_attempts
    error_message = "max_attempts: Pub/Sub allows 5 to 100."
  }
}

variable "min_backoff_seconds" {
  description = "Shortest time between two attempts; it doubles from one to the next."
  type        = number
  default     = 10

  validation {
    condition     = var.min_backoff_seconds >= 1 && var.min_backoff_seconds <= var.max_backoff_seconds
    error_message = "min_backoff_seconds: want 1 to max_backoff_seconds."
  }
}

variable "max_backoff_seconds" {
  description = "Longest time between two attempts."
  type        = number
  default     = 600

  validation {
    condition     = var.max_backoff_seconds <= 600
    error_message = "max_backoff_seconds: Pub/Sub allows at most 600."
  }
}

variable "request_retention_hours" {
  description = "How long Pub/Sub keeps a request that nobody has acknowledged."
  type        = number
  default     = 24

  validation {
    condition     = var.request_retention_hours >= 1 && var.request_retention_hours <= 744
    error_message = "request_retention_hours: want 1 to 744 (31 days)."
  }
}

variable "dead_letter_retention_days" {
  description = "How long dead letters wait for an operator."
  type        = number
  default     = 31

  validation {
    condition     = var.dead_letter_retention_days >= 1 && var.dead_letter_retention_days <= 31
    error_message = "dead_letter_retention_days: Pub/Sub allows 1 to 31."
  }
}

# --- the gateway, for browsers -----------------------------------------------

variable "enable_gateway" {
  description = "Whether to deploy the Gateway. It is the one part that anybody on the internet can reach; it asks for a Firebase ID token."
  type        = bool
  default     = false
}

variable "gateway_origins" {
  description = "Origins whose pages may use the gateway, such as https://app.example.com."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for o in var.gateway_origins : can(regex("^https?://[^/*,@?#\\s]+$", o))])
    error_message = "gateway_origins: want scheme://host or scheme://host:port each, without a path or wildcard."
  }

  validation {
    condition     = length(var.gateway_origins) <= 100
    error_message = "gateway_origins: want at most 100."
  }

  validation {
    condition     = var.enable_gateway || length(var.gateway_origins) == 0
    error_message = "gateway_origins is of no use without enable_gateway = true."
  }
}

variable "gateway_user_rate" {
  description = "Requests a minute and user."
  type        = number
  default     = 120

  validation {
    condition     = var.gateway_user_rate >= 1 && var.gateway_user_rate <= 1000 && floor(var.gateway_user_rate) == var.gateway_user_rate
    error_message = "gateway_user_rate: want 1 to 1000."
  }
}

variable "gateway_max_instances" {
  description = "Most instances of the gateway, each with up to 1,000 event streams and requests (Cloud Run's limit)."
  type        = number
  default     = 5

  validation {
    condition     = var.gateway_max_instances >= 1 && var.gateway_max_instances <= 100 && floor(var.gateway_max_instances) == var.gateway_max_instances
    error_message = "gateway_max_instances: want 1 to 100."
  }
}

variable "gateway_stream_minutes" {
  description = "After which an event stream ends and its client resumes."
  type        = number
  default     = 50

  validation {
    condition     = var.gateway_stream_minutes >= 1 && var.gateway_stream_minutes <= 59
    error_message = "gateway_stream_minutes: want 1 to 59: Cloud Run ends a request after an hour."
  }
}

variable "gateway_max_user_streams" {
  description = "Event streams of one user that an instance serves."
  type        = number
  default     = 20

  validation {
    condition     = var.gateway_max_user_streams >= 1 && var.gateway_max_user_streams <= 1000 && floor(var.gateway_max_user_streams) == var.gateway_max_user_streams
    error_message = "gateway_max_user_streams: want 1 to 1000."
  }
}

# --- network, people, protection ---------------------------------------------

variable "subnetwork" {
  description = "Existing subnetwork, as projects/…/subnetworks/…, that Cloud Run sends from: the one from which redis_url's server can be reached. One of another project must let Cloud Run's agent use it (roles/compute.networkUser). Null makes a network."
  type        = string
  default     = null

  validation {
    condition     = var.subnetwork == null || can(regex("^projects/[^/]+/regions/[^/]+/subnetworks/[^/]+$", var.subnetwork))
    error_message = "subnetwork: want projects/PROJECT/regions/REGION/subnetworks/NAME."
  }

  validation {
    condition     = var.subnetwork == null || try(split("/", var.subnetwork)[3], "") == var.region
    error_message = "subnetwork must be in the region that is deployed to."
  }

  validation {
    condition     = var.subnetwork == null || !var.create_redis
    error_message = "subnetwork and create_redis exclude each other: the instance is made in the network that is made here."
  }
}

variable "subnet_range" {
  description = "Range of the subnetwork that is made."
  type        = string
  default     = "10.80.0.0/24"

  validation {
    condition     = can(cidrhost(var.subnet_range, 0)) && try(tonumber(split("/", var.subnet_range)[1]), 32) <= 26
    error_message = "subnet_range: want an IPv4 range of /26 or larger: Cloud Run takes addresses in blocks."
  }
}

variable "operators" {
  description = "Members, such as group:ops@example.com, that may read and acknowledge dead letters."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for m in var.operators : can(regex("^(user|group|serviceAccount|domain|principal|principalSet):.+", m))])
    error_message = "operators: want members such as group:ops@example.com; allUsers and allAuthenticatedUsers are not among them."
  }
}

variable "kms_key" {
  description = "Cloud KMS key, as projects/…/locations/REGION/keyRings/…/cryptoKeys/…, that encrypts topics, secrets, registry, Redis, audit log and the build's bucket; null for Google's own keys. Decide before the first apply: the audit log can't be given another."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/${var.region}/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "kms_key: want projects/…/locations/REGION/keyRings/…/cryptoKeys/…, in the region that is deployed to."
  }
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to destroy what holds data: topics, subscriptions, Redis, the audit log. Apply with false before you destroy."
  type        = bool
  default     = true
}

variable "labels" {
  description = "Labels of every resource that can have some, besides app and managed-by."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for k, v in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", k)) && can(regex("^[a-z0-9_-]{0,63}$", v))])
    error_message = "labels: want keys and values of small letters, digits, _ and -, at most 63 each."
  }
}

# --- telemetry ---------------------------------------------------------------

variable "enable_telemetry" {
  description = "Whether metrics and traces go to Google's telemetry endpoint, with a dashboard and alerts. The audit log is kept in any case."
  type        = bool
  default     = true
}

variable "trace_ratio" {
  description = "Share of the traces that are kept, 0 to 1, unless the client decided."
  type        = number
  default     = 0.01

  validation {
    condition     = var.trace_ratio >= 0 && var.trace_ratio <= 1
    error_message = "trace_ratio: want 0 to 1."
  }
}

variable "alert_channels" {
  description = "Existing notification channels, as projects/…/notificationChannels/…, that alerts go to."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for c in var.alert_channels : can(regex("^projects/[^/]+/notificationChannels/[^/]+$", c))])
    error_message = "alert_channels: want names such as projects/my-project/notificationChannels/123."
  }
}

variable "alert_emails" {
  description = "Addresses that alerts go to. Without these and alert_channels, alerts show in the console only."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for a in var.alert_emails : can(regex("^[^@[:space:]]+@[^@[:space:]]+$", a))])
    error_message = "alert_emails: want addresses such as oncall@example.com."
  }
}

variable "alert_lag_seconds" {
  description = "How old the oldest unread request may be before somebody is called."
  type        = number
  default     = 120

  validation {
    condition     = var.alert_lag_seconds >= 10 && var.alert_lag_seconds <= 86400
    error_message = "alert_lag_seconds: want 10 to 86400."
  }
}

variable "alert_in_flight_minutes" {
  description = "How old the oldest unanswered request may be before somebody is called. One that fails is tried for more than half an hour."
  type        = number
  default     = 10

  validation {
    condition     = var.alert_in_flight_minutes >= 1 && var.alert_in_flight_minutes <= var.answer_deadline_minutes
    error_message = "alert_in_flight_minutes: want 1 to answer_deadline_minutes."
  }
}

variable "alert_error_ratio" {
  description = "Share of an action's answers that may be errors, over ten minutes, before somebody is called."
  type        = number
  default     = 0.2

  validation {
    condition     = var.alert_error_ratio > 0 && var.alert_error_ratio < 1
    error_message = "alert_error_ratio: want more than 0 and less than 1."
  }
}

variable "runbook_url" {
  description = "Where RUNBOOK.md can be read, such as its address on GitHub; null for nowhere. Alerts carry their section's text in any case, and link to its heading here."
  type        = string
  default     = null

  validation {
    condition     = var.runbook_url == null || can(regex("^https://[^#]+$", var.runbook_url))
    error_message = "runbook_url: want an https:// address without a fragment."
  }
}

variable "audit_retention_days" {
  description = "How long the audit log is kept. HIPAA asks for six years (2192 days)."
  type        = number
  default     = 2192

  validation {
    condition     = var.audit_retention_days >= 1 && var.audit_retention_days <= 3650
    error_message = "audit_retention_days: Cloud Logging keeps 1 to 3650 days."
  }
}

variable "lock_audit_log" {
  description = "Whether the audit log's bucket is locked. IRREVERSIBLE: nobody, Google included, can then unlock it, shorten its retention, or delete it before it is empty, and the project can't be deleted for as long. Apply once without it, look, and then with it."
  type        = bool
  default     = false
}
