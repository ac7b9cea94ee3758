"""What shops call columns that say what became of an order, and values by which it came to nothing."""

from __future__ import annotations

from typing import Final

from features.values.names import plain

_STATUS: Final = frozenset(
    "status statut estado stato situacao stan zustand etat state paymentstatus orderstatus bestellstatus "
    "auftragsstatus zahlungsstatus betaalstatus orderstatus statuszamowienia".split()
)
_FLAGS: Final = frozenset(
    "cancelled canceled cancellation refunded refund returned void voided deleted storniert storno retoure "
    "erstattet annule rembourse cancelado cancelada anulado reembolsado devuelto annullato rimborsato reso "
    "geannuleerd geretourneerd anulowane zwrot".split()
)
"""Words in the name of a column that say yes or no, or when."""
_DELIVERY: Final = frozenset(
    "fulfillment fulfilment shipping shipment delivery versand lieferung".split(),
)
_VOID: Final = frozenset(
    "cancelled canceled cancel cancellation annulled void voided storniert storno abgebrochen annule annulee "
    "annulation cancelado cancelada anulado anulada annullato annullata annulliert geannuleerd anulowane "
    "anulowano anulowany refunded refund erstattet ruckerstattet rembourse remboursee reembolsado "
    "reembolsada "
    "rimborsato rimborsata terugbetaald zwrocone zwrot returned return retoure retourniert zuruckgeschickt "
    "retourne devolvido devuelto reso geretourneerd failed failure fehlgeschlagen echouee fallido falhou "
    "fallito mislukt declined rejected abgelehnt refusee expired abgelaufen chargeback fraud trash".split()
)
_UNPAID: Final = frozenset(
    "pending pending_payment awaiting_payment unpaid on_hold draft checkout_draft unbezahlt ausstehend "
    "zahlung_ausstehend en_attente attente_paiement impayee non_payee pendiente pendente "
    "aguardando_pagamento nao_pago in_attesa in_attesa_di_pagamento non_pagato in_afwachting onbetaald "
    "oczekujace nieoplacone".split()
)
"""Of a payment or an order, not of a delivery: what is to be sent has been bought."""
_YES: Final = frozenset(("1", "true", "yes", "y", "ja", "oui", "si", "sim", "tak", "t"))


def says_what_became(column: str) -> bool:
    """Whether a column's name says that it holds the state of an order, or that an order was cancelled."""
    written = plain(column)
    words = set(written.split("_"))
    return bool(words & (_STATUS | _FLAGS)) or written.replace("_", "").endswith("status")


def is_void(column: str, value: str) -> bool:
    """Whether a value of such a column says that nothing was bought, or that it was given back.

    Args:
        column: its name; of one like `is_cancelled`, yes is such a value.
        value: as the file has it.
    """
    words = set(plain(column).split("_"))
    state = plain(value).removeprefix("wc_")
    if words & _FLAGS and not words & _STATUS:
        return state in _YES
    return state in _VOID or (state in _UNPAID and not words & _DELIVERY)
