module keystead

go 1.19
