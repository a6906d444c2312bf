# Images are built by Cloud Build (cloudbuild.yaml) whenever the source is another,
# under a tag that is a hash of it, and deployed by digest. With image_tag the build
# was somebody else's, and nothing is built.

locals {
  source = "${path.root}/.."
  source_files = sort(setunion(
    fileset(local.source, "{bridge,functions,pkg}/**"),
    fileset(local.source, "{go.mod,go.sum,cloudbuild.yaml,.ko.yaml,.gcloudignore}"),
  ))
  source_hash = sha256(join("\n", [for f in local.source_files : "${f} ${filesha256("${local.source}/${f}")}"]))

  builds    = var.image_tag == null ? toset(["this"]) : toset([])
  image_tag = coalesce(var.image_tag, try(terraform_data.images["this"].output, null))
  images    = { for name, image in data.google_artifact_registry_docker_image.images : name => image.self_link }
}

resource "google_artifact_registry_repository" "images" {
  location      = var.region
  repository_id = var.name
  description   = "Images of the bridge and the functions"
  format        = "DOCKER"
  kms_key_name  = var.kms_key

  # Only what no tag names: what is deployed has one, and plan and destroy read it.
  cleanup_policies {
    id     = "untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "${30 * 86400}s"
    }
  }

  depends_on = [time_sleep.apis, time_sleep.kms]
}

# Where the source waits for its build.
resource "google_storage_bucket" "build" {
  name                        = "${var.project_id}-${var.name}-build"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = 7
    }
  }

  dynamic "encryption" {
    for_each = local.kms
    content {
      default_kms_key_name = var.kms_key
    }
  }

  depends_on = [time_sleep.apis, time_sleep.kms]
}

resource "terraform_data" "images" {
  for_each = local.builds

  input            = "src-${substr(local.source_hash, 0, 16)}"
  triggers_replace = [local.source_hash, google_artifact_registry_repository.images.id]

  provisioner "local-exec" {
    working_dir = local.source
    interpreter = ["bash"]
    command     = "terraform/build.sh"
    environment = {
      PROJECT         = var.project_id
      REGION          = var.region
      REPOSITORY      = google_artifact_registry_repository.images.repository_id
      BUCKET          = google_storage_bucket.build.name
      SERVICE_ACCOUNT = google_service_account.builder.id
      TAG             = self.input
    }
  }

  depends_on = [
    google_artifact_registry_repository_iam_member.builder,
    google_project_iam_member.builder_logs,
    google_storage_bucket_iam_member.builder,
  ]
}

data "google_artifact_registry_docker_image" "images" {
  for_each = toset(["bridge", "functions"])

  location      = google_artifact_registry_repository.images.location
  repository_id = google_artifact_registry_repository.images.repository_id
  image_name    = "${each.value}:${local.image_tag}"
}
