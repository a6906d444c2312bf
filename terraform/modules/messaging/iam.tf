# Pub/Sub's service agent moves dead letters: it publishes to their topic, and takes
# them off the subscription that they come from. Without either grant a request that
# keeps failing is delivered for ever. The agent appears when the API is enabled.

locals {
  agent  = "serviceAccount:service-${coalesce(var.project_number, "0")}@gcp-sa-pubsub.iam.gserviceaccount.com"
  agents = var.manage_iam ? toset(["pubsub"]) : toset([])

  push_accounts = var.manage_iam ? {
    for name, target in { process = var.process, record = var.record } : name => target.account if target.account != null
  } : {}
}

resource "google_pubsub_topic_iam_member" "agent_dead_letters" {
  for_each = local.agents

  project = var.project_id
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = local.agent

  lifecycle {
    replace_triggered_by = [google_pubsub_topic.dead_letters.id]
  }
}

# A subscription that is replaced has lost its bindings, whatever the state says.
resource "google_pubsub_subscription_iam_member" "agent_requests" {
  for_each = local.agents

  project      = var.project_id
  subscription = google_pubsub_subscription.requests.name
  role         = "roles/pubsub.subscriber"
  member       = local.agent

  lifecycle {
    replace_triggered_by = [google_pubsub_subscription.requests.id]
  }
}

# The agent signs the tokens that pushes carry.
resource "google_service_account_iam_member" "agent_tokens" {
  for_each = local.push_accounts

  service_account_id = "projects/${var.project_id}/serviceAccounts/${each.value}"
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.agent
}

resource "google_pubsub_topic_iam_member" "requests_publishers" {
  for_each = { for name, member in var.publishers.requests : name => member if var.manage_iam }

  project = var.project_id
  topic   = google_pubsub_topic.requests.name
  role    = "roles/pubsub.publisher"
  member  = each.value

  lifecycle {
    replace_triggered_by = [google_pubsub_topic.requests.id]
  }
}

resource "google_pubsub_topic_iam_member" "dead_letters_publishers" {
  for_each = { for name, member in var.publishers.dead_letters : name => member if var.manage_iam }

  project = var.project_id
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = each.value

  lifecycle {
    replace_triggered_by = [google_pubsub_topic.dead_letters.id]
  }
}

resource "google_pubsub_subscription_iam_member" "operators" {
  for_each = var.manage_iam ? var.operators : []

  project      = var.project_id
  subscription = google_pubsub_subscription.inspect.name
  role         = "roles/pubsub.subscriber"
  member       = each.value

  lifecycle {
    replace_triggered_by = [google_pubsub_subscription.inspect.id]
  }
}
