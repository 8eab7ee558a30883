"""Chats and a chat template for tests."""

JINJA = (
    "{% for m in messages %}\n"
    "{{- '<s>' + m.role + '\\n' + m.content + '</s>\\n' }}\n"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<s>assistant\\n' }}{% endif %}"
)


def turn(role: str, content: object) -> dict[str, object]:
    """One message in OpenAI's form."""
    return {"role": role, "content": content}


USER, ANSWER = turn("user", "what"), turn("assistant", "one word")
