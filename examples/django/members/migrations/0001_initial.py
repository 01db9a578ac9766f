from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name="Member",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kc_id", models.CharField(max_length=255)),
                ("tenant", models.CharField(max_length=63)),
                ("active", models.BooleanField(default=True)),
                ("name", models.CharField(blank=True, max_length=255)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("tenant", "kc_id"), name="one_member_per_user_and_tenant")],
            },
        ),
    ]
