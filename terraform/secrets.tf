# Values are write-only: neither the state nor a plan holds them. (Memorystore's
# password is the exception: the provider reads it, so it is in the state.)
# Services pin the version that they were deployed with. A value that changes is
# written by raising its number, which makes a new version first and then disables
# the old one, for a way back.

locals {
  secret_readers = merge(
    { for part in local.parts : "redis-url ${part}" => { secret = "redis-url", part = part } },
    { "php-api-key process" = { secret = "php-api-key", part = "process" } },
    var.policy_file == null ? {} : {
      for part in ["bridge", "process", "record"] : "policy ${part}" => { secret = "policy", part = part }
    },
  )
  secrets = toset(concat(["redis-url", "php-api-key"], var.policy_file == null ? [] : ["policy"]))

  # Not a secret's hash: that of a file that is read whole, and never guessed.
  policy_version = var.policy_file == null ? 0 : parseint(substr(filesha256(var.policy_file), 0, 12), 16)
  policy_dir     = "/etc/tebra"
  policy_name    = "policy.yaml"
}

resource "google_secret_manager_secret" "this" {
  for_each = local.secrets

  secret_id           = "${var.name}-${each.value}"
  deletion_protection = false # what it holds is written anew by an apply

  replication {
    user_managed {
      replicas {
        location = var.region

        dynamic "customer_managed_encryption" {
          for_each = local.kms
          content {
            kms_key_name = var.kms_key
          }
        }
      }
    }
  }

  depends_on = [time_sleep.apis, time_sleep.kms]
}

resource "google_secret_manager_secret_iam_member" "readers" {
  for_each = local.secret_readers

  secret_id = google_secret_manager_secret.this[each.value.secret].id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.parts[each.value.part].member
}

# A revision that may not read its secrets does not start, and rights take a while to
# be known everywhere. During a first apply the images take longer.
resource "time_sleep" "readers" {
  create_duration = "120s"
  triggers        = { readers = join(" ", keys(local.secret_readers)) }

  depends_on = [google_secret_manager_secret_iam_member.readers]
}

resource "google_secret_manager_secret_version" "redis_url" {
  secret                 = google_secret_manager_secret.this["redis-url"].id
  secret_data_wo         = var.create_redis ? "rediss://:${urlencode(local.redis.auth_string)}@${local.redis.host}:${local.redis.port}" : var.redis_url
  secret_data_wo_version = var.secret_versions.redis_url
  deletion_policy        = "DISABLE"

  lifecycle {
    create_before_destroy = true
    replace_triggered_by  = [terraform_data.redis_address]
  }
}

resource "google_secret_manager_secret_version" "php_api_key" {
  secret                 = google_secret_manager_secret.this["php-api-key"].id
  secret_data_wo         = var.php_api_key
  secret_data_wo_version = var.secret_versions.php_api_key
  deletion_policy        = "DISABLE"

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_secret_manager_secret_version" "policy" {
  for_each = var.policy_file == null ? toset([]) : toset(["this"])

  secret                 = google_secret_manager_secret.this["policy"].id
  secret_data_wo         = file(var.policy_file)
  secret_data_wo_version = local.policy_version
  deletion_policy        = "DISABLE"

  lifecycle {
    create_before_destroy = true
  }
}
