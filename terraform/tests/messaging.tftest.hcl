# The topology of Pub/Sub, as the module makes it by itself.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  project_id     = "test-project"
  project_number = "123456789012"
  process = {
    endpoint = "https://process-abc-uc.a.run.app/ProcessRequest"
    audience = "https://process-abc-uc.a.run.app"
    account  = "push-process@test-project.iam.gserviceaccount.com"
  }
  record = {
    endpoint = "https://record-abc-uc.a.run.app/RecordDeadLetter"
    audience = "https://record-abc-uc.a.run.app"
    account  = "push-record@test-project.iam.gserviceaccount.com"
  }
}

run "requests_are_pushed_with_an_audience_of_their_own" {
  command = plan
  module {
    source = "./modules/messaging"
  }

  assert {
    condition = google_pubsub_subscription.requests.push_config[0].push_endpoint == var.process.endpoint && google_pubsub_subscription.requests.push_config[0].oidc_token[0] == {
      audience              = "https://process-abc-uc.a.run.app"
      service_account_email = "push-process@test-project.iam.gserviceaccount.com"
    }
    error_message = "requests are pushed elsewhere, or as somebody else"
  }
  assert {
    condition = google_pubsub_subscription.dead_letters.push_config[0].push_endpoint == var.record.endpoint && google_pubsub_subscription.dead_letters.push_config[0].oidc_token[0] == {
      audience              = "https://record-abc-uc.a.run.app"
      service_account_email = "push-record@test-project.iam.gserviceaccount.com"
    }
    error_message = "dead letters are pushed elsewhere, or as somebody else"
  }
}

run "a_failing_request_is_tried_ten_times_and_kept" {
  command = plan
  module {
    source = "./modules/messaging"
  }

  assert {
    condition     = google_pubsub_subscription.requests.ack_deadline_seconds == 120 && google_pubsub_subscription.requests.message_retention_duration == "86400s"
    error_message = "want 120 s a push, and 24 hours"
  }
  assert {
    condition     = google_pubsub_subscription.requests.retry_policy[0].minimum_backoff == "10s" && google_pubsub_subscription.requests.retry_policy[0].maximum_backoff == "600s"
    error_message = "want 10 s to 600 s between attempts"
  }
  assert {
    condition     = google_pubsub_subscription.requests.dead_letter_policy[0].max_delivery_attempts == 10
    error_message = "want 10 attempts"
  }
}

run "a_dead_letter_is_answered_for_ever_and_kept_for_people" {
  command = plan
  module {
    source = "./modules/messaging"
  }

  assert {
    condition     = length(google_pubsub_subscription.dead_letters.dead_letter_policy) == 0
    error_message = "an answer that is owed is given up"
  }
  assert {
    condition     = google_pubsub_subscription.inspect.message_retention_duration == "2678400s" && length(google_pubsub_subscription.inspect.push_config) == 0
    error_message = "want 31 days for operators, who pull"
  }
  assert {
    condition = alltrue([
      for s in [google_pubsub_subscription.requests, google_pubsub_subscription.dead_letters, google_pubsub_subscription.inspect] :
      s.expiration_policy[0].ttl == ""
    ])
    error_message = "a subscription expires, and what is in it is lost"
  }
}

run "both_dead_letter_grants_are_the_agents" {
  command = plan
  module {
    source = "./modules/messaging"
  }

  assert {
    condition = (google_pubsub_topic_iam_member.agent_dead_letters["pubsub"].role == "roles/pubsub.publisher"
      && google_pubsub_topic_iam_member.agent_dead_letters["pubsub"].topic == "tebra-dead-letters"
    && google_pubsub_topic_iam_member.agent_dead_letters["pubsub"].member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com")
    error_message = "the agent can't publish dead letters"
  }
  assert {
    condition = (google_pubsub_subscription_iam_member.agent_requests["pubsub"].role == "roles/pubsub.subscriber"
      && google_pubsub_subscription_iam_member.agent_requests["pubsub"].subscription == "tebra-requests-push"
    && google_pubsub_subscription_iam_member.agent_requests["pubsub"].member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com")
    error_message = "the agent can't take a dead letter off its subscription"
  }
  assert {
    condition = toset([for m in google_service_account_iam_member.agent_tokens : "${m.service_account_id} ${m.role}"]) == toset([
      "projects/test-project/serviceAccounts/push-process@test-project.iam.gserviceaccount.com roles/iam.serviceAccountTokenCreator",
      "projects/test-project/serviceAccounts/push-record@test-project.iam.gserviceaccount.com roles/iam.serviceAccountTokenCreator",
    ])
    error_message = "the agent must sign for the push accounts, and for nobody else"
  }
}

run "without_iam_it_is_for_an_emulator" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    project_number             = null
    manage_iam                 = false
    process                    = { endpoint = "http://127.0.0.1:8080/ProcessRequest" }
    record                     = { endpoint = "http://127.0.0.1:8080/RecordDeadLetter" }
    dead_letter_retention_days = 7
    operators                  = ["group:ops@example.com"]
    publishers                 = { requests = { bridge = "serviceAccount:b@example.com" } }
  }

  assert {
    condition = 0 == sum([
      length(google_pubsub_topic_iam_member.agent_dead_letters), length(google_pubsub_subscription_iam_member.agent_requests),
      length(google_service_account_iam_member.agent_tokens), length(google_pubsub_topic_iam_member.requests_publishers),
      length(google_pubsub_topic_iam_member.dead_letters_publishers), length(google_pubsub_subscription_iam_member.operators),
    ])
    error_message = "an emulator is asked for IAM"
  }
  assert {
    condition     = length(google_pubsub_subscription.requests.push_config[0].oidc_token) == 0
    error_message = "a push without an account carries a token"
  }
  assert {
    condition     = google_pubsub_subscription.inspect.message_retention_duration == "604800s"
    error_message = "want the 7 days that an emulator allows"
  }
}

run "policy_region_and_key_come_from_variables" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    ack_deadline_seconds       = 600
    min_backoff_seconds        = 0
    max_backoff_seconds        = 600
    max_attempts               = 100
    request_retention_hours    = 744
    dead_letter_retention_days = 31
    storage_regions            = ["europe-west1"]
    kms_key                    = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"
    labels                     = { team = "web" }
  }

  assert {
    condition = (google_pubsub_subscription.requests.ack_deadline_seconds == 600 && google_pubsub_subscription.requests.retry_policy[0].minimum_backoff == "0s"
    && google_pubsub_subscription.requests.dead_letter_policy[0].max_delivery_attempts == 100 && google_pubsub_subscription.requests.message_retention_duration == "2678400s")
    error_message = "a variable of the policy does nothing"
  }
  assert {
    condition = alltrue([for t in [google_pubsub_topic.requests, google_pubsub_topic.dead_letters] :
      t.kms_key_name == var.kms_key && t.message_storage_policy[0].allowed_persistence_regions == toset(["europe-west1"])
    && t.labels["team"] == "web"])
    error_message = "a topic is stored elsewhere, or under another key"
  }
  assert {
    condition     = google_pubsub_topic.requests.message_storage_policy[0].enforce_in_transit && !google_pubsub_topic.dead_letters.message_storage_policy[0].enforce_in_transit
    error_message = "requests leave the region, or operators elsewhere can't pull dead letters"
  }
}

run "what_can_hold_messages_is_protected" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    deletion_protection = true
  }

  assert {
    condition = alltrue([
      for r in [
        google_pubsub_topic.requests, google_pubsub_topic.dead_letters,
        google_pubsub_subscription.requests, google_pubsub_subscription.dead_letters, google_pubsub_subscription.inspect,
      ] : r.deletion_policy == "PREVENT"
    ])
    error_message = "an accident could take messages away"
  }
}

# --- what is refused, beside what is just admitted (above) --------------------

run "reject_101_attempts" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    max_attempts = 101
  }
  expect_failures = [var.max_attempts]
}

run "reject_four_attempts" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    max_attempts = 4
  }
  expect_failures = [var.max_attempts]
}

run "reject_a_longer_ack_deadline_than_pubsub_has" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    ack_deadline_seconds = 601
  }
  expect_failures = [var.ack_deadline_seconds]
}

run "reject_a_shorter_longest_backoff_than_the_shortest" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    min_backoff_seconds = 11
    max_backoff_seconds = 10
  }
  expect_failures = [var.min_backoff_seconds]
}

run "reject_a_backoff_over_600_s" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    max_backoff_seconds = 601
  }
  expect_failures = [var.max_backoff_seconds]
}

run "reject_32_days" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    dead_letter_retention_days = 32
    request_retention_hours    = 745
  }
  expect_failures = [var.dead_letter_retention_days, var.request_retention_hours]
}

run "reject_pushes_in_the_clear" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    process = { endpoint = "http://process.example.com/" }
    record  = { endpoint = "http://127.0.0.1.example.com/" }
  }
  expect_failures = [var.process, var.record]
}

run "reject_dead_letters_among_the_requests" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    requests_topic     = "tebra"
    dead_letters_topic = "tebra"
  }
  expect_failures = [var.dead_letters_topic]
}

run "reject_names_that_pubsub_refuses" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    requests_topic       = "1st"
    inspect_subscription = "ab"
  }
  expect_failures = [var.requests_topic, var.inspect_subscription]
}

run "reject_a_topic_in_googles_name" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    dead_letters_topic = "goog-letters"
  }
  expect_failures = [var.dead_letters_topic]
}

run "admit_the_longest_names" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    requests_topic       = join("", ["r", join("", [for i in range(199) : "x"])])
    dead_letters_topic   = "dlq"
    inspect_subscription = "sub"
  }

  assert {
    condition     = length(google_pubsub_topic.requests.name) == 200
    error_message = "the name is another"
  }
}

run "reject_iam_without_the_projects_number" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  variables {
    project_number = null
  }
  expect_failures = [var.manage_iam]
}
