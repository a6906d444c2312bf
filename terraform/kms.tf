# With a key of one's own, each service encrypts as its agent, which must be let.
# Two of the agents appear only when they are asked for, which the provider can't
# do outside its beta.

locals {
  kms = var.kms_key == null ? toset([]) : toset(["this"])
  kms_agents = var.kms_key == null ? {} : merge(
    {
      pubsub           = "service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
      secretmanager    = "service-${data.google_project.this.number}@gcp-sa-secretmanager.iam.gserviceaccount.com"
      artifactregistry = "service-${data.google_project.this.number}@gcp-sa-artifactregistry.iam.gserviceaccount.com"
      storage          = "service-${data.google_project.this.number}@gs-project-accounts.iam.gserviceaccount.com"
    },
    var.create_redis ? { redis = "service-${data.google_project.this.number}@cloud-redis.iam.gserviceaccount.com" } : {},
  )
}

resource "terraform_data" "kms_agents" {
  for_each = local.kms

  triggers_replace = [data.google_project.this.number, sort(keys(local.kms_agents))]

  provisioner "local-exec" {
    interpreter = ["bash", "-ec"]
    command     = <<-EOT
      for service in pubsub secretmanager artifactregistry ${var.create_redis ? "redis" : ""}; do
        gcloud beta services identity create --project="$PROJECT" --service="$service.googleapis.com" --quiet
      done
      gcloud storage service-agent --project="$PROJECT" --quiet
    EOT
    environment = { PROJECT = var.project_id }
  }
}

resource "google_kms_crypto_key_iam_member" "agents" {
  for_each = local.kms_agents

  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${each.value}"

  depends_on = [terraform_data.kms_agents]
}
