"""The application: its name, and where its settings are."""

from beatd import Beatd as Celery

app = Celery("article")
app.config_from_object("article.config")
