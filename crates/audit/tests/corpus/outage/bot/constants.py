import os

BOT_TOKEN = os.environ["BOT_TOKEN"]
SENTRY_DSN = os.environ.get("SENTRY_DSN", "")
PREFIX = os.environ.get("BOT_PREFIX", "!")
