# Services act as agents, accounts that are Google's own. Google makes an agent when its
# service is used for the first time, and a grant to one that is not there yet fails:
# so they are asked for, which the provider can't do outside its beta. With an image_tag
# the first apply is over, and Pub/Sub's is there.

locals {
  agents = distinct(concat(
    var.image_tag == null ? ["pubsub"] : [],
    var.kms_key == null ? [] : concat(["pubsub", "secretmanager", "artifactregistry"], var.create_redis ? ["redis"] : []),
  ))
}

resource "terraform_data" "agents" {
  for_each = length(local.agents) > 0 ? toset(["this"]) : toset([])

  triggers_replace = [data.google_project.this.number, local.agents, var.kms_key != null]

  provisioner "local-exec" {
    interpreter = ["bash"]
    command     = "${path.module}/agents.sh"
    environment = {
      PROJECT  = var.project_id
      NUMBER   = data.google_project.this.number
      SERVICES = join(" ", local.agents)
      STORAGE  = var.kms_key != null
    }
  }

  depends_on = [time_sleep.apis]
}
