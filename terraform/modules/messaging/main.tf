# Topics and subscriptions:
#
#   bridge ──▶ requests ──push──▶ ProcessRequest
#                 │ after max_attempts
#                 ▼
#           dead_letters ──push──▶ RecordDeadLetter   (for ever: an answer is owed)
#                 └───────pull──▶ operators           (never expires)
#
# bridge/internal/topology makes the same of an emulator for the local run; a test
# keeps the two in step.

locals {
  # Nobody answers what a subscription has dropped: they never expire.
  never = ""

  retry = {
    minimum_backoff = "${var.min_backoff_seconds}s"
    maximum_backoff = "${var.max_backoff_seconds}s"
  }
  deletion_policy       = var.deletion_protection ? "PREVENT" : "DELETE"
  dead_letter_retention = "${var.dead_letter_retention_days * 86400}s"
}

resource "google_pubsub_topic" "requests" {
  project         = var.project_id
  name            = var.requests_topic
  kms_key_name    = var.kms_key
  labels          = var.labels
  deletion_policy = local.deletion_policy

  dynamic "message_storage_policy" {
    for_each = length(var.storage_regions) > 0 ? [var.storage_regions] : []
    content {
      allowed_persistence_regions = message_storage_policy.value
      enforce_in_transit          = true # all who publish and are pushed to are there
    }
  }
}

resource "google_pubsub_topic" "dead_letters" {
  project         = var.project_id
  name            = var.dead_letters_topic
  kms_key_name    = var.kms_key
  labels          = var.labels
  deletion_policy = local.deletion_policy

  dynamic "message_storage_policy" {
    for_each = length(var.storage_regions) > 0 ? [var.storage_regions] : []
    content {
      allowed_persistence_regions = message_storage_policy.value
      enforce_in_transit          = false # it would refuse operators, who pull from where they are
    }
  }
}

resource "google_pubsub_subscription" "requests" {
  project                    = var.project_id
  name                       = "${var.requests_topic}-push"
  topic                      = google_pubsub_topic.requests.id
  ack_deadline_seconds       = var.ack_deadline_seconds
  message_retention_duration = "${var.request_retention_hours * 3600}s"
  labels                     = var.labels
  deletion_policy            = local.deletion_policy

  push_config {
    push_endpoint = var.process.endpoint

    dynamic "oidc_token" {
      for_each = var.process.account == null ? [] : [var.process]
      content {
        service_account_email = oidc_token.value.account
        audience              = oidc_token.value.audience
      }
    }
  }

  retry_policy {
    minimum_backoff = local.retry.minimum_backoff
    maximum_backoff = local.retry.maximum_backoff
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = var.max_attempts
  }

  expiration_policy {
    ttl = local.never
  }

  # A dead letter without a subscription is lost.
  depends_on = [
    google_pubsub_subscription.dead_letters,
    google_pubsub_subscription.inspect,
    google_pubsub_topic_iam_member.agent_dead_letters,
  ]
}

# Without a dead-letter policy of its own it is tried until it is answered.
resource "google_pubsub_subscription" "dead_letters" {
  project                    = var.project_id
  name                       = "${var.dead_letters_topic}-push"
  topic                      = google_pubsub_topic.dead_letters.id
  ack_deadline_seconds       = var.ack_deadline_seconds
  message_retention_duration = local.dead_letter_retention
  labels                     = var.labels
  deletion_policy            = local.deletion_policy

  push_config {
    push_endpoint = var.record.endpoint

    dynamic "oidc_token" {
      for_each = var.record.account == null ? [] : [var.record]
      content {
        service_account_email = oidc_token.value.account
        audience              = oidc_token.value.audience
      }
    }
  }

  retry_policy {
    minimum_backoff = local.retry.minimum_backoff
    maximum_backoff = local.retry.maximum_backoff
  }

  expiration_policy {
    ttl = local.never
  }
}

resource "google_pubsub_subscription" "inspect" {
  project                    = var.project_id
  name                       = var.inspect_subscription
  topic                      = google_pubsub_topic.dead_letters.id
  ack_deadline_seconds       = var.ack_deadline_seconds
  message_retention_duration = local.dead_letter_retention
  labels                     = var.labels
  deletion_policy            = local.deletion_policy

  expiration_policy {
    ttl = local.never
  }
}
