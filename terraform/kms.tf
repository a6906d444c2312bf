# With a key of one's own, each service encrypts as its agent, which must be let.

locals {
  kms = var.kms_key == null ? toset([]) : toset(["this"])
  kms_agents = var.kms_key == null ? {} : merge(
    {
      pubsub           = "service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
      secretmanager    = "service-${data.google_project.this.number}@gcp-sa-secretmanager.iam.gserviceaccount.com"
      artifactregistry = "service-${data.google_project.this.number}@gcp-sa-artifactregistry.iam.gserviceaccount.com"
      storage          = "service-${data.google_project.this.number}@gs-project-accounts.iam.gserviceaccount.com"
      logging          = data.google_logging_project_cmek_settings.this["this"].service_account_id
    },
    var.create_redis ? { redis = "service-${data.google_project.this.number}@cloud-redis.iam.gserviceaccount.com" } : {},
  )
}

# Logging's agent has a name of its own, which asking for makes it.
data "google_logging_project_cmek_settings" "this" {
  for_each = local.kms

  project    = var.project_id
  depends_on = [time_sleep.asked]
}

resource "google_kms_crypto_key_iam_member" "agents" {
  for_each = local.kms_agents

  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${each.value}"

  depends_on = [terraform_data.agents]
}

# Rights take a while to be known everywhere.
resource "time_sleep" "kms" {
  for_each = local.kms

  create_duration = "120s"
  triggers        = { agents = join(" ", keys(local.kms_agents)) }

  depends_on = [google_kms_crypto_key_iam_member.agents]
}
