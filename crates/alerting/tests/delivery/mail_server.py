# A mail server for the tests, of Debian's python3-aiosmtpd. Prints its port, then each message as a line of JSON.
# Arguments: none | starttls | tls, and then certificate and key. Login is asked for with TLS. The first message to "later@" is refused
# for now, each to "never@" for ever.
import asyncio, email, email.policy, json, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    refused = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("never@"):
            return "550 5.1.1 no such user"
        if address.startswith("later@") and address not in self.refused:
            self.refused.add(address)
            return "451 4.7.1 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        print(json.dumps({
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None or security == "tls",
            "user": session.auth_data,
            "headers": {name.lower(): str(value) for name, value in message.items()},
            "text": message.get_content(),
        }), flush=True)
        return "250 OK"


def login(server, session, envelope, mechanism, data):
    good = (data.login, data.password) == (b"guard", b"t0ken-s3cr3t")
    return AuthResult(success=good, handled=False, auth_data="guard" if good else None)


security = sys.argv[1]
context = None
if security != "none":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])


def server():
    return SMTP(
        Handler(),
        hostname="mail.test",
        tls_context=context if security == "starttls" else None,
        require_starttls=security == "starttls",
        authenticator=login,
        auth_required=security != "none",
        auth_require_tls=security == "starttls",
    )


async def main():
    wrapped = context if security == "tls" else None
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, ssl=wrapped)
    print(listening.sockets[0].getsockname()[1], flush=True)
    # It ends with the test that started it.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
